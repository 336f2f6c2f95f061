// Bodies that are nearly right: something left out, of another type, too large, too deep, or added.

/** Numbers from 0 to 1 that follow from the seed (mulberry32). */
export function random(seed: number): () => number {
  let state = (seed + 1) * 0x9e3779b9
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296
  }
}

const ODD: readonly unknown[] = [
  null,
  true,
  -1,
  0,
  1.5,
  1e308,
  '',
  '\u0000',
  'x'.repeat(5000),
  [],
  {},
  [[[[]]]],
  { __proto__: { a: 1 } },
  '../../etc',
  '💥',
  -0,
]

/** A copy of `value` with one or two of its parts changed. */
export function mutated(value: unknown, draw: () => number): unknown {
  const once = changed(value, draw)
  return draw() < 0.3 ? changed(once, draw) : once
}

function changed(value: unknown, draw: () => number): unknown {
  const pick = <T>(list: readonly T[]): T => list[Math.floor(draw() * list.length)]!
  if (draw() < 0.15 || typeof value !== 'object' || value === null) return pick(ODD)
  if (Array.isArray(value)) {
    if (value.length === 0 || draw() < 0.2) return [...value, pick(ODD)]
    const at = Math.floor(draw() * value.length)
    return value.map((entry, i) => (i === at ? changed(entry, draw) : entry))
  }
  const entries = Object.entries(value)
  if (entries.length === 0 || draw() < 0.15)
    return { ...value, [pick(['extra', 'constructor', 'n', 'seeds', 'stop', 'stream'])]: pick(ODD) }
  const [key] = pick(entries)
  if (draw() < 0.25) return Object.fromEntries(entries.filter(([name]) => name !== key))
  return Object.fromEntries(entries.map(([name, entry]) => [name, name === key ? changed(entry, draw) : entry]))
}
