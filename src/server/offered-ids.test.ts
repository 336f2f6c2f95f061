// As many ids as a client is about to post groups, whatever its program asks.

import { describe, expect, it } from 'vitest'
import { uniforms } from '../engine/random'
import { BatchIds, groupsIn, OfferedIds } from './offered-ids'

/** `times` answers to each of these prompts. */
function rollOut(ids: OfferedIds, prompts: readonly string[], times: number, json = false): void {
  for (const prompt of prompts) for (let i = 0; i < times; i++) ids.sampled(prompt, json)
}

describe('the number of groups', () => {
  it.each([
    ['one call a rollout, all of an example alike', [4, 4, 4], 3],
    ['an example twice in a step', [8, 4], 3],
    ['rollouts that got lost', [4, 3, 3], 3],
    ['two calls, the second with a prompt of its own in every rollout', [4, 4, 1, 1, 1, 1, 1, 1, 1, 1], 4],
    ['two calls, some of the second ones alike', [4, 4, 3, 1, 2, 2], 4],
    ['two calls, of which a rollout reached the second only three times: one too many', [4, 4, 1, 1, 1, 1, 1, 1, 1], 4],
    ['many examples, in each of which one rollout asked otherwise', [3, 1, 3, 1, 3, 1, 3, 1, 3, 1, 3, 1], 6],
    ['less than a group', [1, 1], 1],
  ])('%s', (_, counts, groups) => {
    expect(groupsIn(counts, 4)).toBe(groups)
  })

  it('groups of two', () => {
    expect(groupsIn([2, 2, 1, 1, 1, 1], 2)).toBe(4)
  })
})

describe('the ids offered', () => {
  it("are Arbor's two until a step's size is known, then as many as it has groups, and stay so", () => {
    const ids = new OfferedIds(new BatchIds(), 4)
    ids.count()
    expect(ids.list()).toEqual([0, 1])
    rollOut(ids, ['a', 'b', 'c'], 4)
    ids.count()
    expect(ids.list()).toEqual([0, 1, 2])
    for (const id of [0, 1, 2]) ids.serve(id, `digest ${id}`)
    expect(ids.list()).toEqual([3, 4, 5])
    ids.count()
    expect(ids.list()).toEqual([3, 4, 5])
  })

  it('become fewer when a step has fewer groups', () => {
    const ids = new OfferedIds(new BatchIds(), 4)
    rollOut(ids, ['a'], 4)
    ids.count()
    expect(ids.list()).toEqual([0])
    ids.serve(0, 'a')
    expect(ids.list()).toEqual([1])
  })

  it("don't count second questions in JSON, but count those of a program that asks for JSON only", () => {
    const ids = new OfferedIds(new BatchIds(), 4)
    rollOut(ids, ['a', 'b'], 4)
    rollOut(ids, ['a in JSON', 'b in JSON'], 3, true)
    ids.count()
    expect(ids.list()).toHaveLength(2)
    rollOut(ids, ['a', 'b', 'c'], 4, true)
    ids.count()
    expect(ids.list()).toHaveLength(3)
  })

  it("don't count what was sampled before the last post: a validation is no step", () => {
    const ids = new OfferedIds(new BatchIds(), 4)
    rollOut(ids, ['a'], 4)
    ids.count()
    rollOut(
      ids,
      Array.from({ length: 40 }, (_, i) => `validation ${i}`),
      1,
    )
    ids.serve(0, 'a')
    ids.count()
    expect(ids.list()).toEqual([1])
  })

  it('are one for a whole step where the client posts all groups together', () => {
    const ids = new OfferedIds(new BatchIds(), null)
    rollOut(ids, ['a', 'b', 'c'], 4)
    ids.count()
    expect(ids.list()).toEqual([0])
  })

  it('are never those of another job', () => {
    const process = new BatchIds()
    const [first, second] = [new OfferedIds(process, 4), new OfferedIds(process, 4)]
    first.serve(0, 'x')
    expect(first.list()).toEqual([1, 4])
    expect(second.list()).toEqual([2, 3])
    expect([first.serve(0, 'x'), second.serve(0, 'x')]).toEqual([false, true])
  })
})

/** arbor-ai's queue of groups: filled up with all groups of the step, shuffled, until there are enough for the ids. */
class Client {
  readonly #queue: string[] = []
  constructor(private readonly random: () => number) {}
  take(groups: readonly string[], ids: number): string[] {
    while (this.#queue.length < ids) this.#queue.push(...[...groups].sort(() => this.random() - 0.5))
    return this.#queue.splice(0, ids)
  }
}

describe('a client whose rollouts fail on the way', () => {
  it('posts what it filled up with after a step of which nothing was left: known again', () => {
    const ids = new OfferedIds(new BatchIds(), 4)
    rollOut(ids, ['a', 'b', 'c'], 4)
    ids.count() // two of three groups are left: the client posts one of them again, and keeps the other
    expect(['a', 'b', 'a'].map((group, id) => ids.serve(id, group))).toEqual([true, true, false])
    rollOut(ids, ['d', 'e', 'f'], 4)
    ids.count() // none of these is left: nothing is posted
    rollOut(ids, ['g', 'h', 'i'], 4)
    ids.count()
    const offered = ids.list()
    expect(['b', 'g', 'h', 'i'].map((group, i) => ids.serve(offered[i]!, group))).toEqual([false, true, true, true])
  })

  it('has every group trained once, in its own step, however many it fills up with', () => {
    const random = uniforms(7, 0)
    const [examples, size, steps] = [3, 4, 200]
    const ids = new OfferedIds(new BatchIds(), size)
    const client = new Client(random)
    for (let step = 0; step < steps; step++) {
      const groups: string[] = []
      for (let example = 0; example < examples; example++) {
        // Two calls a rollout; one in ten can't read the first answer, and then the second call's group is dropped.
        const reached = Array.from({ length: size }, () => random() > 0.1)
        for (const [rollout, second] of reached.entries()) {
          ids.sampled(`${step} ${example}`, false)
          if (second) ids.sampled(`${step} ${example} ${rollout}`, false)
        }
        groups.push(`${step} ${example} first`)
        if (reached.every(Boolean)) groups.push(`${step} ${example} second`)
      }
      ids.count()
      const offered = ids.list()
      const trained = client.take(groups, offered.length).filter((group, i) => ids.serve(offered[i]!, group))
      expect(trained.sort()).toEqual(groups.sort())
      ids.count()
    }
  })
})
