// Byte-level BPE training: the pair that stands side by side most often becomes a token, again and again. Counts are kept up to date
// word by word, so a merge costs only the words it touches. The result is that of Hugging Face tokenizers' BpeTrainer, ties included:
// of equally frequent pairs the one with the smaller ids is merged.

import { OptionError } from '../errors'
import { MaxHeap } from './max-heap'
import { BYTE_CHARACTERS } from './words'

export interface BpeOptions {
  /** Tokens in all: special ones, the 256 bytes, merges. */
  readonly vocab: number
  /** Tokens 0, 1, … in this order; never made by a merge, never split. */
  readonly specials: readonly string[]
}

/** A trained vocabulary. Tokens are written in byte characters (words.ts), special ones as they are. */
export interface Bpe {
  readonly specials: readonly string[]
  /** By id: special tokens, the bytes in the order of their characters, then merges. */
  readonly tokens: readonly string[]
  /** Pairs of ids with what they become, most important first. */
  readonly merges: readonly Merge[]
}

export interface Merge {
  readonly left: number
  readonly right: number
  readonly token: number
}

/** A pair in the queue: how often it stood there when it was queued, and in which words. */
interface Candidate {
  readonly pair: number
  readonly words: ReadonlySet<number>
  count: number
}

/** Ids are below it, so that a pair of ids is one number: left · PAIR + right. */
const PAIR = 1 << 20

/**
 * Learns a vocabulary from words and how often each occurs (splitWords). It may come out smaller than asked for when nothing is left to merge.
 * @throws OptionError for a vocabulary without room for the bytes
 */
export function trainBpe(wordCounts: ReadonlyMap<string, number>, { vocab, specials }: BpeOptions): Bpe {
  if (!Number.isInteger(vocab) || vocab < specials.length + 256 || vocab > PAIR)
    throw new OptionError(
      `A byte-level vocabulary of ${vocab} tokens is not possible: choose ${specials.length + 256} to ${PAIR}.`,
    )
  return new Training(wordCounts, specials).run(vocab)
}

class Training {
  private readonly tokens: string[]
  private readonly idOf: Map<string, number>
  private readonly words: number[][] = []
  private readonly wordCounts: number[] = []
  private readonly pairCounts = new Map<number, number>()
  /** Words in which a pair came up since it was last queued. */
  private readonly fresh = new Map<number, Set<number>>()
  private readonly queue = new MaxHeap<Candidate>((a, b) => a.count - b.count || b.pair - a.pair)

  constructor(
    wordCounts: ReadonlyMap<string, number>,
    private readonly specials: readonly string[],
  ) {
    this.tokens = [...specials, ...byteTokens()]
    this.idOf = new Map(this.tokens.map((token, id) => [token, id]))
    for (const [word, count] of wordCounts) {
      this.words.push(Array.from(Buffer.from(word), (byte) => this.idOf.get(BYTE_CHARACTERS[byte]!)!))
      this.wordCounts.push(count)
    }
  }

  run(vocab: number): Bpe {
    for (const [word, ids] of this.words.entries())
      for (let i = 1; i < ids.length; i++) this.change(ids[i - 1]! * PAIR + ids[i]!, { word, by: 1 })
    this.enqueue()
    // Keyed by pair: a pair that is queued twice is merged twice, and its later place counts.
    const merges = new Map<number, number>()
    while (this.tokens.length < vocab) {
      const best = this.queue.pop()
      if (!best) break
      const count = this.pairCounts.get(best.pair)!
      if (best.count !== count) {
        best.count = count // fell behind since it was queued: back to its place
        this.queue.push(best)
        continue
      }
      if (count < 1) break
      const token = this.merge(best)
      merges.delete(best.pair)
      merges.set(best.pair, token)
      this.enqueue()
    }
    const list = [...merges].map(([pair, token]) => ({ left: Math.floor(pair / PAIR), right: pair % PAIR, token }))
    return { specials: this.specials, tokens: this.tokens, merges: list }
  }

  /** Joins the pair in all its words; answers the new token. Two ways to the same text share one token. */
  private merge({ pair, words }: Candidate): number {
    const [left, right] = [Math.floor(pair / PAIR), pair % PAIR]
    const text = this.tokens[left]! + this.tokens[right]!
    const token = this.idOf.get(text) ?? this.tokens.push(text) - 1
    this.idOf.set(text, token)
    for (const word of words) this.mergeInWord(word, { left, right, token })
    return token
  }

  private mergeInWord(word: number, { left, right, token }: Merge): void {
    const ids = this.words[word]!
    for (let i = 0; i + 1 < ids.length; i++) {
      if (ids[i] !== left || ids[i + 1] !== right) continue
      ids.splice(i, 2, token)
      if (i > 0) {
        this.change(ids[i - 1]! * PAIR + left, { word, by: -1 })
        this.change(ids[i - 1]! * PAIR + token, { word, by: 1 })
      }
      if (i + 1 < ids.length) {
        this.change(right * PAIR + ids[i + 1]!, { word, by: -1 })
        this.change(token * PAIR + ids[i + 1]!, { word, by: 1 })
      }
    }
  }

  /** The pair stands `by` times more in a word, hence as often as the word occurs in the texts. */
  private change(pair: number, { word, by }: { word: number; by: 1 | -1 }): void {
    this.pairCounts.set(pair, (this.pairCounts.get(pair) ?? 0) + by * this.wordCounts[word]!)
    if (by < 0) return
    const words = this.fresh.get(pair)
    if (words) words.add(word)
    else this.fresh.set(pair, new Set([word]))
  }

  private enqueue(): void {
    for (const [pair, words] of this.fresh) {
      const count = this.pairCounts.get(pair)!
      if (count > 0) this.queue.push({ pair, words, count })
    }
    this.fresh.clear()
  }
}

/** The 256 bytes as tokens, in the order of their characters. */
function byteTokens(): string[] {
  return [...BYTE_CHARACTERS].sort((a, b) => a.codePointAt(0)! - b.codePointAt(0)!)
}
