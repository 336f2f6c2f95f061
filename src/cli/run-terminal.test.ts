import { describe, expect, it } from 'vitest'
import { plot } from '../index'
import { RunTerminal } from './run-terminal'

/** What a terminal of 80 columns was sent. */
function terminal() {
  let said = ''
  const write = (text: string) => void (said += text)
  const shown = new RunTerminal({ stdout: { write }, stderr: { write, isTTY: true, columns: 80 } })
  return { shown, said: () => said }
}

describe('the terminal of a run', () => {
  const figure = plot.curves([{ name: 'one', y: [1, 2] }], { title: 'A chart' })

  it('rewrites one line while a run goes on; charts that change meanwhile do not take turns with it', () => {
    const { shown, said } = terminal()
    for (const step of [1, 2]) {
      shown.onOutput({ 'text/plain': `step ${step}`, 'text/html': `<b>step ${step}</b>` }, true)
      shown.onOutput(figure.liveBundle('a'), step > 1)
    }
    shown.onOutput(figure.bundle('a'), true)
    expect(said()).toBe('\r\x1b[2Kstep 1\r\x1b[2Kstep 2')
  })

  it('tells in words what a chart shows that is the value of a cell', () => {
    const { shown, said } = terminal()
    shown.onOutput(figure.bundle('a'), false)
    expect(said()).toBe(`${figure.summary}\n`)
  })

  it('cuts long results, but never for one line', () => {
    const { shown, said } = terminal()
    const lines = (count: number) => Array.from({ length: count }, (_, i) => `${i + 1}`).join('\n')
    shown.onOutput({ 'text/plain': lines(13) }, false)
    expect(said()).toBe(`${lines(13)}\n`)
    shown.onOutput({ 'text/plain': lines(20) }, false)
    expect(said()).toContain('\n12\n\x1b[2m… 8 more lines\x1b[22m\n')
  })
})
