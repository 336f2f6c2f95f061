import { describe, expect, it } from 'vitest'
import { Contexts } from './contexts'
import type { SamplingParams } from './engine'
import { Sequence } from './sequence'

const sampling: SamplingParams = { temperature: 1, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1 }

function sequence(slots: readonly number[], reserve: readonly number[] = []): Sequence {
  const one = new Sequence({ policy: null, prompt: [1], seeds: [1], maxNewTokens: 9, sampling, stopTokenIds: [] }, 0, 0)
  for (const slot of slots) one.slots.push(slot)
  one.reserve.push(...reserve)
  return one
}

/** Takes the next slot out of the reserve, as a decode pass does. */
function goOn(one: Sequence): void {
  one.slots.push(one.reserve.pop()!)
}

describe('Contexts', () => {
  /** Lays out, and answers how many entries are to be uploaded. */
  const layOut = (contexts: Contexts, all: readonly Sequence[]) => {
    contexts.layOut(all)
    for (const { slots, context } of all)
      expect([...contexts.entries.subarray(context.start, context.start + slots.length)]).toEqual(slots.own)
    return contexts.end - contexts.changedFrom
  }

  it('lists slots once, those set aside as well, and adds nothing until they are used up', () => {
    const contexts = new Contexts(100)
    const all = [sequence([4, 5, 6], [9, 8, 7]), sequence([4, 5], [12, 11, 10])]
    expect(layOut(contexts, all)).toBe(11)
    for (let step = 0; step < 3; step++) {
      for (const one of all) goOn(one)
      expect(layOut(contexts, all)).toBe(0)
    }
    all[0]!.slots.push(20)
    expect(layOut(contexts, all)).toBe(7) // and the other one stays where it is
  })

  it('a slot set aside that somebody else was given is noticed', () => {
    const contexts = new Contexts(100)
    const all = [sequence([1], [3, 2]), sequence([5], [7, 6])]
    layOut(contexts, all)
    goOn(all[0]!)
    all[1]!.reserve.length = 0
    all[1]!.slots.push(9)
    expect(layOut(contexts, all)).toBe(2)
  })

  it('without slots set aside everybody begins anew at each pass, in place of the pass before', () => {
    const contexts = new Contexts(8)
    const all = [sequence([1, 2, 3]), sequence([4])]
    for (let slot = 5; slot < 9; slot += 2) {
      expect(layOut(contexts, all)).toBe(contexts.end)
      all[0]!.slots.push(slot)
      all[1]!.slots.push(slot + 1)
    }
    expect(layOut(contexts, all)).toBe(8)
  })

  it('leaves out what is set aside where there is no room for it', () => {
    const contexts = new Contexts(5)
    const all = [sequence([1, 2], [4, 3]), sequence([5, 6], [8, 7])]
    expect(layOut(contexts, all)).toBe(4)
    goOn(all[0]!)
    expect(layOut(contexts, all)).toBe(5)
  })

  it('what sequences left behind is cleared away', () => {
    const contexts = new Contexts(1000)
    const all = [sequence([1, 2, 3], []), sequence([4, 5, 6], [9, 8, 7])]
    for (let step = 0; step < 50; step++) {
      layOut(contexts, all)
      expect(contexts.end).toBeLessThanOrEqual(2 * (all[0]!.slots.length + 6))
      all[0]!.slots.push(100 + step)
    }
  })
})
