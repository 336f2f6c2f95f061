import { describe, expect, it } from 'vitest'
import { uniforms } from './random'
import { uniform } from './sampling'

/** The same as 64-bit integers: splitmix64 of seed and index. */
function splitmix(seed: number, index: number): number {
  const mask = (1n << 64n) - 1n
  let z = (BigInt(seed) * 0x9e3779b97f4a7c15n + BigInt(index) * 0xd1342543de82ef95n + 0x2545f4914f6cdd1dn) & mask
  z = ((z ^ (z >> 30n)) * 0xbf58476d1ce4e5b9n) & mask
  z = ((z ^ (z >> 27n)) * 0x94d049bb133111ebn) & mask
  z ^= z >> 31n
  return Number(z >> 40n) / 2 ** 24
}

describe("a token's random number", () => {
  it('is splitmix64 of seed and index, for seeds of any size and sign', () => {
    const random = uniforms(1, 0)
    const seeds = [0, 1, -1, 2 ** 31, 2 ** 32 - 1, 2 ** 32, -(2 ** 32), 2 ** 53 - 1, -(2 ** 53) + 1]
    for (let i = 0; i < 2000; i++) seeds.push(Math.trunc((random() - 0.5) * 2 ** (1 + Math.floor(random() * 53))))
    const indices = seeds.map((_, i) => (i % 7 === 0 ? Math.floor(random() * 2 ** 33) : i % 4096))
    expect(seeds.map((seed, i) => uniform(seed, indices[i]!))).toEqual(seeds.map((seed, i) => splitmix(seed, indices[i]!)))
  })

  it('drops what a seed has behind the point', () => {
    expect(uniform(7.9, 3)).toBe(uniform(7, 3))
    expect(uniform(-7.9, 3)).toBe(uniform(-7, 3))
  })
})
