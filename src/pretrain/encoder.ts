// Text to tokens with a trained vocabulary, fast where the same words come again and again: each word is merged once and remembered.

import type { Bpe } from './bpe'
import { BYTE_CHARACTERS, splitWords } from './words'

export class BpeEncoder {
  private readonly byteIds: number[]
  private readonly specialIds: ReadonlyMap<string, number>
  private readonly special: RegExp | null
  /** left · vocab + right → place in the list of merges, and what the pair becomes. */
  private readonly merges: ReadonlyMap<number, { rank: number; token: number }>
  private readonly cache = new Map<string, readonly number[]>()

  constructor(private readonly bpe: Bpe) {
    const idOf = new Map(bpe.tokens.map((token, id) => [token, id]))
    this.byteIds = BYTE_CHARACTERS.map((character) => idOf.get(character)!)
    this.specialIds = new Map(bpe.specials.map((text) => [text, idOf.get(text)!]))
    this.special = bpe.specials.length === 0 ? null : new RegExp(`(${bpe.specials.map(escapeRegExp).join('|')})`)
    this.merges = new Map(bpe.merges.map(({ left, right, token }, rank) => [left * bpe.tokens.length + right, { rank, token }]))
  }

  get vocab(): number {
    return this.bpe.tokens.length
  }

  /** The id of a special token. */
  specialId(text: string): number {
    const id = this.specialIds.get(text)
    if (id === undefined) throw new RangeError(`"${text}" is no special token of this vocabulary.`)
    return id
  }

  /** Tokens of `text`; special tokens that are written out in it become their ids. */
  encode(text: string): number[] {
    const ids: number[] = []
    for (const piece of this.special ? text.split(this.special) : [text]) {
      const special = this.specialIds.get(piece)
      if (special !== undefined) ids.push(special)
      else for (const word of splitWords(piece)) ids.push(...this.word(word))
    }
    return ids
  }

  private word(word: string): readonly number[] {
    let ids = this.cache.get(word)
    if (!ids) this.cache.set(word, (ids = this.mergeWord(word)))
    return ids
  }

  /** The most important merge first, the leftmost of equal ones. */
  private mergeWord(word: string): number[] {
    const ids = Array.from(Buffer.from(word), (byte) => this.byteIds[byte]!)
    for (;;) {
      let best = { rank: Number.POSITIVE_INFINITY, token: -1, at: -1 }
      for (let at = 0; at + 1 < ids.length; at++) {
        const merge = this.merges.get(ids[at]! * this.vocab + ids[at + 1]!)
        if (merge && merge.rank < best.rank) best = { ...merge, at }
      }
      if (best.at < 0) return ids
      ids.splice(best.at, 2, best.token)
    }
  }
}

function escapeRegExp(text: string): string {
  return text.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&')
}
