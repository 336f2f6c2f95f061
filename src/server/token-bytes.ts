// The bytes behind each token of a tokenizer. Decoding one token at a time would lose them: half a character is no text.

/** What tokenizer.json says about it. */
interface TokenizerJson {
  readonly added_tokens?: readonly { readonly id: number; readonly content: string; readonly special?: boolean }[]
  readonly model: { readonly vocab: Readonly<Record<string, number>> | readonly (readonly [string, number])[] }
  readonly decoder?: unknown
}

/** Bytes as characters 0 to 255, by token id; null for special tokens and for ids that no token has. */
export function tokenBytes(tokenizer: object): readonly (string | null)[] {
  const { model, added_tokens: added = [], decoder } = tokenizer as TokenizerJson
  const texts: (string | null)[] = []
  const bytesOf = uses(decoder, 'ByteLevel') ? byteLevel : metaspace
  const entries = Array.isArray(model.vocab)
    ? model.vocab.map(([token], id) => [token, id] as const)
    : Object.entries(model.vocab)
  for (const [token, id] of entries) texts[id] = bytesOf(token)
  for (const { id, content, special } of added) texts[id] = special === true ? null : latin(content)
  return Array.from(texts, (text) => text ?? null)
}

/** Whether a decoder is, or holds in its list, one of this type. */
function uses(decoder: unknown, type: string): boolean {
  if (typeof decoder !== 'object' || decoder === null) return false
  const { type: own, decoders } = decoder as { type?: string; decoders?: readonly unknown[] }
  return own === type || (decoders ?? []).some((one) => uses(one, type))
}

/** GPT-2 writes each byte as a printable character: those that are printable as themselves, the others from 256 on. */
const BYTE_OF: ReadonlyMap<string, number> = (() => {
  const printable = (byte: number) => (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae
  const bytes = Array.from({ length: 256 }, (_, byte) => byte)
  const others = bytes.filter((byte) => !printable(byte))
  return new Map(bytes.map((byte) => [String.fromCodePoint(printable(byte) ? byte : 256 + others.indexOf(byte)), byte]))
})()

function byteLevel(token: string): string | null {
  let text = ''
  for (const character of token) {
    const byte = BYTE_OF.get(character)
    if (byte === undefined) return null
    text += String.fromCharCode(byte)
  }
  return text
}

/** SentencePiece: ▁ is a space, <0x0A> a byte. */
function metaspace(token: string): string {
  const byte = token.match(/^<0x([0-9A-Fa-f]{2})>$/)
  return byte ? String.fromCharCode(Number.parseInt(byte[1]!, 16)) : latin(token.replaceAll('\u2581', ' '))
}

function latin(text: string): string {
  return Buffer.from(text).toString('latin1')
}
