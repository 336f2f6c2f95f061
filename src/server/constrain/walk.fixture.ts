// Ways through a grammar for tests: does it take a text, and what does somebody write who knows nothing but what is allowed.

import { Automaton, type State } from './automaton'
import type { Rule } from './grammar'

/** Whether a text of the grammar this is, from beginning to end. */
export function takes(grammar: Rule, text: string): boolean {
  let state: State | null = new Automaton(grammar).start
  for (const byte of Buffer.from(text)) state = state?.after(byte) ?? null
  return state?.accepts === true
}

/** A text of random bytes among those that may come; after `patience` bytes it makes for the end. */
export function wander(grammar: Rule | Automaton, random: () => number, patience = 200): string {
  const bytes: number[] = []
  let state = (grammar instanceof Automaton ? grammar : new Automaton(grammar)).start
  for (;;) {
    const ways = Array.from({ length: 256 }, (_, byte) => ({ byte, after: state.after(byte) })).flatMap(({ byte, after }) =>
      after ? [{ byte, after }] : [],
    )
    if (state.accepts && (ways.length === 0 || bytes.length >= patience || random() < 0.3)) return Buffer.from(bytes).toString()
    const near = ways.filter(({ after }) => after.least < state.least)
    const choices = bytes.length >= patience ? near : ways
    const way = choices[Math.floor(random() * choices.length)]!
    bytes.push(way.byte)
    state = way.after
  }
}

/** Numbers in [0, 1) from a seed (mulberry32). */
export function seeded(seed: number): () => number {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0
    let t = Math.imul(seed ^ (seed >>> 15), seed | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
}
