// Text of many tokens at once. A tokenizer that writes bytes as characters is read by a table of each token's bytes, in a tenth of its library's time.

import { tokenBytes } from './token-bytes'

interface TokenizerJson {
  readonly decoder?: { readonly type?: string } | null
  readonly model: { readonly end_of_word_suffix?: string | null }
}

/**
 * The text of tokens, special ones left out; null for tokens that the table doesn't know. Null itself where a tokenizer's texts are more than its
 * tokens' bytes, one after the other.
 */
export function byteDecoder(
  tokenizer: object,
  special: ReadonlySet<number>,
): ((tokens: readonly number[]) => string | null) | null {
  const { decoder, model } = tokenizer as TokenizerJson
  if (decoder?.type !== 'ByteLevel' || model.end_of_word_suffix) return null
  const bytes = tokenBytes(tokenizer)
  const text = new TextDecoder('utf-8', { ignoreBOM: true })
  return (tokens) => {
    let all = ''
    for (const token of tokens) {
      const own = bytes[token] ?? null
      if (own !== null) all += own
      else if (!special.has(token)) return null
    }
    return text.decode(Buffer.from(all, 'latin1'))
  }
}
