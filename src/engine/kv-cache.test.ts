import { describe, expect, it } from 'vitest'
import { KvCache } from './kv-cache'

/** What a sequence does: walk down, then compute the rest. */
function fill(cache: KvCache, tokens: number[], policy: string | null = 'p', version = 0) {
  let node = cache.descend(cache.open(policy, version), tokens)
  const cached = node.depth
  if (cached < tokens.length) node = cache.extend(node, tokens, tokens.length - cached)!
  return { node, slots: [...node.path], cached }
}

describe('KvCache', () => {
  it('shares a prefix to the token, also when it ends inside a run', () => {
    const cache = new KvCache(100)
    const a = fill(cache, [1, 2, 3, 4, 5, 6])
    const b = fill(cache, [1, 2, 3, 9])
    const c = fill(cache, [1, 2, 3, 4])
    expect([a.cached, b.cached, c.cached]).toEqual([0, 3, 4])
    expect(b.slots.slice(0, 3)).toEqual(a.slots.slice(0, 3))
    expect(c.slots).toEqual(a.slots.slice(0, 4))
    expect(cache.cachedTokens).toBe(7)
    expect(new Set([...a.slots, ...b.slots, ...c.slots]).size).toBe(7)
  })

  it('keeps policies and versions apart', () => {
    const cache = new KvCache(100)
    const first = fill(cache, [1, 2, 3], 'p', 0)
    expect(fill(cache, [1, 2, 3], 'q', 0).cached).toBe(0)
    expect(fill(cache, [1, 2, 3], null, 0).cached).toBe(0)
    cache.release(first.node)
    expect(fill(cache, [1, 2, 3], 'p', 1).cached).toBe(0)
    expect(cache.cachedTokens).toBe(9) // version 0 is gone
  })

  it('evicts the least recently used of what nobody holds, and nothing when that would not be enough', () => {
    const cache = new KvCache(10)
    const old = fill(cache, [1, 2, 3])
    const young = fill(cache, [4, 5, 6])
    const held = fill(cache, [7, 8])
    cache.release(old.node)
    cache.release(young.node)
    cache.release(fill(cache, [1, 2, 3]).node) // used again: now [4, 5, 6] is older
    expect(cache.available).toBe(8)
    expect(cache.allocate(9)).toBeNull()
    expect(cache.cachedTokens).toBe(8)
    expect(cache.allocate(5)).toHaveLength(5)
    expect(fill(cache, [1, 2, 3]).cached).toBe(3)
    expect(cache.evictedTokens).toBe(3)
    expect(held.slots).toHaveLength(2)
    expect(cache.available).toBe(0)
  })

  it('beyond the roomy slots, what is only cached makes way before untouched slots are used', () => {
    const cache = new KvCache(20, 8)
    const old = fill(cache, [1, 2, 3, 4, 5])
    cache.release(old.node)
    const one = fill(cache, [6, 7, 8, 9])
    expect(Math.max(...one.slots)).toBeLessThan(8)
    expect(cache.evictedTokens).toBe(5)
    const two = fill(cache, [10, 11, 12, 13, 14, 15])
    expect(new Set([...one.slots, ...two.slots]).size).toBe(10)
    expect(cache.available).toBe(10)
    expect(cache.allocate(10)).toHaveLength(10)
    expect(cache.allocate(1)).toBeNull()
  })

  it('evicts a parent after its children', () => {
    const cache = new KvCache(8)
    cache.release(fill(cache, [1, 2, 3, 4]).node)
    cache.release(fill(cache, [1, 2, 5, 6]).node)
    expect(cache.cachedTokens).toBe(6)
    expect(cache.allocate(8)).toHaveLength(8)
    expect(cache.cachedTokens).toBe(0)
  })

  it('a split leaves holders and counts as they were', () => {
    const cache = new KvCache(20)
    const a = fill(cache, [1, 2, 3, 4])
    const b = fill(cache, [1, 2, 9])
    cache.release(a.node)
    expect(cache.usedSlots).toBe(3) // 1, 2, 9
    expect(b.node.path).toEqual(Int32Array.from(b.slots))
    cache.release(b.node)
    expect(cache.usedSlots).toBe(0)
    expect(cache.available).toBe(20)
  })

  it('forgets a policy, and refuses while a sequence uses it', () => {
    const cache = new KvCache(10)
    const a = fill(cache, [1, 2, 3])
    expect(() => cache.forget('p')).toThrow(/still use/)
    cache.release(a.node)
    cache.forget('p')
    expect(cache.cachedTokens).toBe(0)
    expect(cache.allocate(10)!.sort((x, y) => x - y)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
  })

  it('never gives one slot to two owners in a long random run (seeded; no false alarm)', () => {
    const cache = new KvCache(64)
    let state = 12345
    const random = (n: number) => (state = (state * 1103515245 + 12345) % 2147483648) % n
    const live: { node: ReturnType<typeof fill>['node']; slots: number[]; shared: number; tokens: number[] }[] = []
    const owner = new Map<number, string>() // slot → the prefix it must hold, as long as somebody lives on it
    for (let round = 0; round < 1000; round++) {
      const tokens = Array.from({ length: 1 + random(8) }, () => random(3))
      let node = cache.descend(cache.open('p', 0), tokens)
      const extended = node.depth < tokens.length ? cache.extend(node, tokens, tokens.length - node.depth) : node
      if (!extended) {
        cache.release(node)
        const gone = live.splice(random(live.length), 1)[0]!
        cache.release(gone.node)
        cache.free(gone.slots.slice(gone.shared))
        continue
      }
      node = extended
      const slots = [...node.path]
      const shared = slots.length
      const tail = cache.allocate(1)
      if (tail) slots.push(...tail)
      live.push({ node, slots, shared, tokens })
      owner.clear()
      for (const [i, sequence] of live.entries())
        for (const [position, slot] of sequence.slots.entries()) {
          const meaning = position < sequence.shared ? sequence.tokens.slice(0, position + 1).join() : `tail of ${i}`
          if ((owner.get(slot) ?? meaning) !== meaning) throw new Error(`slot ${slot}: "${owner.get(slot)}" and "${meaning}"`)
          owner.set(slot, meaning)
        }
      expect(owner.size).toBe(cache.usedSlots)
    }
  })

  it('slots set aside stay available to others, and go to them when nothing else is left', () => {
    const cache = new KvCache(10)
    const [mine, other]: [number[], number[]] = [[], []]
    cache.reserve(mine, 6)
    cache.reserve(other, 6)
    expect([mine.length, other.length, cache.available]).toEqual([6, 4, 10])
    const first = cache.next(mine)
    expect(first).toBe(0)
    expect(cache.available).toBe(9)
    const taken = cache.allocate(3)! // one list gives all it has
    expect(mine).toEqual([])
    expect(cache.available).toBe(6)
    expect(cache.allocate(7)).toBeNull()
    const rest = cache.allocate(6)!
    expect([first, ...taken, ...rest].sort((a, b) => a - b)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    expect(other).toEqual([])
    cache.free(rest)
    expect(cache.next(other)).toBe(rest.at(-1))
  })

  it('what was set aside and not used is given back', () => {
    const cache = new KvCache(4)
    const list: number[] = []
    cache.reserve(list, 9)
    cache.next(list)
    cache.unreserve(list)
    expect([list.length, cache.available]).toEqual([0, 3])
    expect(cache.allocate(3)).not.toBeNull()
  })
})
