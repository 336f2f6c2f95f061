import { appendFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, it } from 'vitest'
import { toPoints, toUnits } from './cursor'
import { History } from './history'

const folder = mkdtempSync(join(tmpdir(), 'arbor-history-'))
afterAll(() => rmSync(folder, { recursive: true }))

it('keeps sessions apart and over restarts, and survives a torn line', () => {
  const file = join(folder, 'deep', 'history.jsonl')
  const first = new History(file)
  first.add(1, 'let a = 1', null)
  first.add(2, 'a + 1', '2')
  appendFileSync(file, '{"session": 1, "li')
  appendFileSync(file, '\n')
  const second = new History(file)
  second.add(1, 'a + 1', null)
  expect(second.rows({ hist_access_type: 'tail', n: 2 })).toEqual([
    [1, 2, 'a + 1'],
    [2, 1, 'a + 1'],
  ])
  expect(second.rows({ hist_access_type: 'range', session: -1, start: 1, stop: 3, output: true })).toEqual([
    [1, 1, ['let a = 1', null]],
    [1, 2, ['a + 1', '2']],
  ])
  expect(second.rows({ hist_access_type: 'search', pattern: 'a + ?', unique: true })).toHaveLength(1)
  expect(second.rows({ hist_access_type: 'search', pattern: 'b*' })).toEqual([])
})

it('goes on where nothing can be written', () => {
  const file = join(folder, 'a file, no folder')
  writeFileSync(file, '')
  const history = new History(join(file, 'history.jsonl'))
  history.add(1, '1', null)
  expect(history.rows({ hist_access_type: 'tail', n: 5 })).toEqual([[1, 1, '1']])
})

it('counts code points both ways', () => {
  expect(toUnits('🙂a', 1)).toBe(2)
  expect(toPoints('🙂a', 3)).toBe(2)
  expect(toUnits('ab', 9)).toBe(2)
})
