// How text is cut before byte pairs are merged, as SmolLM2 and GPT-2 do it: every digit alone, then words with the space before them.

/** Hugging Face's Digits(individual_digits): a digit is a piece of its own. */
const DIGIT_OR_REST = /\p{N}|\P{N}+/gu
/** GPT-2's ByteLevel expression, on each piece. */
const WORD = /'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+/gu

/** The words of `text`, in order; joined they are the text again. No merge crosses their borders. */
export function splitWords(text: string): string[] {
  const words: string[] = []
  for (const [piece] of text.matchAll(DIGIT_OR_REST)) words.push(...(piece.match(WORD) ?? []))
  return words
}

/**
 * One printable character for each byte, GPT-2's: printable Latin-1 stands for itself, the other bytes (space, line feed, control
 * characters) for the characters from U+0100 on. `BYTE_CHARACTERS[0x20]` is 'Ġ'.
 */
export const BYTE_CHARACTERS: readonly string[] = byteCharacters()

function byteCharacters(): string[] {
  const printable = (byte: number) => (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte !== 0xad)
  let next = 0x100
  return Array.from({ length: 256 }, (_, byte) => String.fromCodePoint(printable(byte) ? byte : next++))
}

/** How often each word occurs in the texts: what BPE training works on. */
export function countWords(texts: Iterable<string>): Map<string, number> {
  const counts = new Map<string, number>()
  for (const text of texts) for (const word of splitWords(text)) counts.set(word, (counts.get(word) ?? 0) + 1)
  return counts
}
