import { expect, it } from 'vitest'
import { curves } from './curves'
import { Slots } from './slots'
import { terminalHost } from './terminal'

it('a terminal shows what changes on one line, leaves charts out, and begins a new line for something else', () => {
  let written = ''
  const host = terminalHost({ isTTY: true, columns: 20, write: (text) => (written += text) })
  const slots = new Slots('run', host)
  slots.put('status', { 'text/plain': 'step 1\nsecond line' })
  slots.chart('curve', curves([{ name: 'a', y: [1, 2] }]), true)
  slots.put('status', { 'text/plain': 'step 2, with more than fits' })
  host!.display({ 'text/plain': 'a value' })
  expect(written).toBe('\r\x1b[2Kstep 1\r\x1b[2Kstep 2, with more t\na value\n')
})

it('a file or a pipe is no terminal', () => {
  expect(terminalHost({ write: () => true })).toBeNull()
})
