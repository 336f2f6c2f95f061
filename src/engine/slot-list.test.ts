import { describe, expect, it } from 'vitest'
import { SlotList } from './slot-list'

describe('SlotList', () => {
  const list = () => {
    const slots = new SlotList()
    slots.shared = Int32Array.of(5, 6, 7)
    for (const slot of [20, 21]) slots.push(slot)
    return slots
  }

  it('is the shared slots, then its own', () => {
    const slots = list()
    expect([slots.length, slots.last]).toEqual([5, 21])
    expect([0, 2, 3, 4, 5].map((place) => slots.at(place))).toEqual([5, 7, 20, 21, undefined])
  })

  it('copies as many as are asked for', () => {
    const copied = [2, 3, 4, 5].map((count) => {
      const entries = new Int32Array(6)
      list().copyTo(entries, 1, count)
      return [...entries]
    })
    expect(copied).toEqual([
      [0, 5, 6, 0, 0, 0],
      [0, 5, 6, 7, 0, 0],
      [0, 5, 6, 7, 20, 0],
      [0, 5, 6, 7, 20, 21],
    ])
  })

  it('forgets all when it is cleared, and nothing of what others share', () => {
    const slots = list()
    const { shared } = slots
    slots.clear()
    expect([slots.length, slots.at(0), [...shared]]).toEqual([0, undefined, [5, 6, 7]])
  })
})
