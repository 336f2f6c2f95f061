// Ranges of code points as the byte sequences that UTF-8 writes them with.

import { bytesOf, either, type Fragment, never, sequence } from './grammar'

/** Last code points that take one, two, three and four bytes. */
const LIMITS = [0x7f, 0x7ff, 0xffff, 0x10ffff] as const

export type CodePoints = readonly (readonly [number, number])[]

/** One character whose code point lies in a range; surrogates, which UTF-8 has no bytes for, are left out. */
export function codePoints(ranges: CodePoints): Fragment {
  const sequences = ranges
    .flatMap(([low, high]) => withoutSurrogates(low, high))
    .flatMap(([low, high]) => splitByLength(low, high))
  return sequences.length === 0 ? never : either(...sequences.map((bytes) => sequence(...bytes.map((range) => bytesOf(range)))))
}

function withoutSurrogates(low: number, high: number): [number, number][] {
  const parts: [number, number][] = []
  if (low < 0xd800) parts.push([low, Math.min(high, 0xd7ff)])
  if (high > 0xdfff) parts.push([Math.max(low, 0xe000), high])
  return parts
}

type ByteRanges = (readonly [number, number])[]

function splitByLength(low: number, high: number): ByteRanges[] {
  for (const limit of LIMITS)
    if (low <= limit && high > limit) return [...splitByLength(low, limit), ...splitByLength(limit + 1, high)]
  return splitByPrefix(low, high)
}

/** Ranges whose bytes vary independently of each other: all but the first differing byte run over their whole range. */
function splitByPrefix(low: number, high: number): ByteRanges[] {
  const [from, to] = [encode(low), encode(high)]
  for (let tail = 1; tail < from.length; tail++) {
    const block = 64 ** tail // code points that share all but the last `tail` bytes
    if (Math.floor(low / block) === Math.floor(high / block)) continue
    if (low % block !== 0) {
      const end = low - (low % block) + block - 1
      return [...splitByPrefix(low, end), ...splitByPrefix(end + 1, high)]
    }
    if (high % block !== block - 1) {
      const start = high - (high % block)
      return [...splitByPrefix(low, start - 1), ...splitByPrefix(start, high)]
    }
  }
  return [from.map((byte, i) => [byte, to[i]!] as const)]
}

function encode(point: number): number[] {
  return [...Buffer.from(String.fromCodePoint(point))]
}
