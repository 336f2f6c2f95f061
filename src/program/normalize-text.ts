// Text as answers are compared: without case, punctuation, English articles and extra blanks. Follows dspy/evaluate/metrics.py.

const PUNCTUATION = /[!-/:-@[-`{-~]/g
/** Whole words, as Python's `\b` sees them: an accent that stands apart after NFD ends a word. */
const ARTICLES = /(?<![\p{L}\p{N}_])(?:a|an|the)(?![\p{L}\p{N}_])/gu
const BLANKS = /[\t-\r\x1c-\x20\x85\p{Z}]+/u

/** @example normalizeText('The,  Eiffel  Tower!') // 'eiffel tower' */
export function normalizeText(text: string): string {
  const words = text.normalize('NFD').toLowerCase().replace(PUNCTUATION, '').replace(ARTICLES, ' ')
  return words.split(BLANKS).filter(Boolean).join(' ')
}
