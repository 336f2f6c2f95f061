import { describe, expect, it } from 'vitest'
import { formGroups, type Rollout } from './groups'

const call = (predictor: string, text: string) => ({
  predictor,
  messages: [{ role: 'user', content: `${predictor}?` }],
  text,
  completionId: `${text}#0`,
})
const rollout = (example: number, reward: number, calls: ReturnType<typeof call>[]): Rollout => ({
  example,
  title: `example ${example}`,
  calls,
  reward,
  rewards: null,
  formatFailure: false,
  programError: null,
})
/** Groups in short: name, then text:reward of every row. */
const short = (rollouts: Rollout[], predictors: string[], mode: 'truncate' | 'fill' | 'ragged' = 'truncate') => {
  const { batch, groups, dropped } = formGroups(rollouts, predictors, mode)
  const rows = batch.map((rows) =>
    rows.map((row) => `${(row.completion as { content: string }).content}:${row.reward}`).join(' '),
  )
  return { groups: groups.map((group, i) => `${group.predictor}/${group.example}: ${rows[i]}`), dropped }
}

describe('formGroups', () => {
  it('makes one group for each predictor and example, rewards of 0 included', () => {
    const rollouts = [
      rollout(7, 0, [call('query', 'q1'), call('answer', 'a1')]),
      rollout(7, 1, [call('query', 'q2'), call('answer', 'a2')]),
      rollout(3, -1, [call('query', 'q3'), call('answer', 'a3')]),
      rollout(3, 0.5, [call('query', 'q4'), call('answer', 'a4')]),
    ]
    expect(short(rollouts, ['query', 'answer'])).toEqual({
      groups: ['query/7: q1:0 q2:1', 'answer/7: a1:0 a2:1', 'query/3: q3:-1 q4:0.5', 'answer/3: a3:-1 a4:0.5'],
      dropped: [],
    })
  })

  it('sends messages, text and the id of the completion', () => {
    const { batch } = formGroups([rollout(0, 1, [call('p', 'x')]), rollout(0, 0, [call('p', 'y')])], ['p'], 'truncate')
    expect(batch[0]![0]).toEqual({
      messages: [{ role: 'user', content: 'p?' }],
      completion: { role: 'assistant', content: 'x' },
      reward: 1,
      completion_id: 'x#0',
    })
  })

  describe('a predictor that was called unequally often', () => {
    const rollouts = [
      rollout(0, 1, [call('hop', 'a1'), call('hop', 'a2'), call('hop', 'a3')]),
      rollout(0, 0, [call('hop', 'b1'), call('hop', 'b2')]),
      rollout(0, 2, [call('hop', 'c1')]),
    ]
    it('truncate: as many groups as the fewest calls', () => {
      expect(short(rollouts, ['hop'], 'truncate').groups).toEqual(['hop/0: a1:1 b1:0 c1:2'])
    })
    it('fill: the last call stands in, in every group as many rows', () => {
      expect(short(rollouts, ['hop'], 'fill').groups).toEqual([
        'hop #1/0: a1:1 b1:0 c1:2',
        'hop #2/0: a2:1 b2:0 c1:2',
        'hop #3/0: a3:1 b2:0 c1:2',
      ])
    })
    it('ragged: those that got there; a group of one is dropped and said', () => {
      const { groups, dropped } = short(rollouts, ['hop'], 'ragged')
      expect(groups).toEqual(['hop #1/0: a1:1 b1:0 c1:2', 'hop #2/0: a2:1 b2:0'])
      expect(dropped).toEqual(['hop #3, "example 0": only 1 of 3 rollouts reached it'])
    })
  })

  it.each(['truncate', 'ragged'] as const)('%s: a rollout that did not reach a predictor is not padded with copies', (mode) => {
    const rollouts = [
      rollout(0, 1, [call('query', 'q1'), call('answer', 'a1')]),
      rollout(0, 0, [call('query', 'q2')]),
      rollout(0, 2, [call('query', 'q3'), call('answer', 'a3')]),
    ]
    expect(short(rollouts, ['query', 'answer'], mode).groups).toEqual(['query/0: q1:1 q2:0 q3:2', 'answer/0: a1:1 a3:2'])
  })

  it('a group of one rollout is dropped, in words; nothing at all makes no group', () => {
    const alone = [rollout(0, 1, [call('answer', 'a')]), rollout(0, 0, [])]
    expect(short(alone, ['answer'])).toEqual({ groups: [], dropped: ['answer, "example 0": only 1 of 2 rollouts reached it'] })
    expect(short([rollout(0, 1, []), rollout(0, 0, [])], ['answer'])).toEqual({ groups: [], dropped: [] })
  })
})
