import { appendFileSync, mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { writeWhole } from '../engine/whole-file'
import { RolloutLog } from './rollout-log'

const line = (step: number, title: string, completion = 'ä') =>
  `${JSON.stringify({
    step,
    batch_id: 7,
    predictor: 'p',
    example: 0,
    title,
    messages: [{ role: 'user', content: 'q' }],
    rollouts: [{ completion, completion_id: null, reward: 1, advantage: 0.5, tokens: 1, truncated: false, source: 'id' }],
  })}\n`

function log(text: string) {
  const folder = mkdtempSync(join(tmpdir(), 'arbor-rollouts-'))
  const path = join(folder, 'rollouts.jsonl')
  writeFileSync(path, text)
  const rollouts = new RolloutLog(folder)
  return { path, titles: (step: number) => rollouts.groups(step).map(({ title }) => title), rollouts }
}

it('finds the groups of a step, also those written since; a torn last line is not read', () => {
  const { path, titles } = log(line(1, 'a') + line(1, 'b ö') + line(2, 'c'))
  expect([titles(1), titles(2), titles(3)]).toEqual([['a', 'b ö'], ['c'], []])
  const next = line(3, 'd')
  appendFileSync(path, next.slice(0, 50))
  expect(titles(3)).toEqual([])
  appendFileSync(path, next.slice(50) + line(3, 'e'))
  expect([titles(3), titles(1)]).toEqual([
    ['d', 'e'],
    ['a', 'b ö'],
  ])
})

it('reads a log anew that a resumed run has cut', () => {
  const { path, titles } = log(line(1, 'a') + line(2, 'long ago') + line(3, 'c'))
  expect(titles(3)).toEqual(['c'])
  writeWhole(path, line(1, 'a'))
  expect([titles(2), titles(3)]).toEqual([[], []])
  appendFileSync(path, line(2, 'again, with a longer title than before') + line(3, 'f'))
  expect([titles(2), titles(3)]).toEqual([['again, with a longer title than before'], ['f']])
})

it('reads lines that are longer than one read', () => {
  const long = 'x'.repeat(3 << 20)
  const { rollouts, titles } = log(line(1, 'a', long) + line(2, 'b') + line(3, 'c', long))
  expect(rollouts.groups(1)[0]!.rollouts[0]!.completion).toHaveLength(3 << 20)
  expect([titles(2), titles(3)]).toEqual([['b'], ['c']])
})

it('of a run without a log there is nothing to read', () => {
  expect(new RolloutLog('/nowhere').groups(1)).toEqual([])
})
