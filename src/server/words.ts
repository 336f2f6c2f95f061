// Tokenizing by words. Where a space and a letter follow a character that is no space, no token reaches across: what stands between two such places
// has the same ids in every text. The questions of a data set are made of words that came before, so they are looked up.

type Encode = (text: string) => number[]

/** Of a tokenizer.json, what decides. */
interface TokenizerJson {
  readonly normalizer?: { readonly type: string } | null
  readonly pre_tokenizer?: PreTokenizer | null
  readonly model: { readonly type?: string }
}

interface PreTokenizer {
  readonly type: string
  readonly pretokenizers?: readonly PreTokenizer[]
  readonly pattern?: { readonly Regex?: string }
  readonly add_prefix_space?: boolean
  readonly use_regex?: boolean
}

/** Words remembered; more, and all are forgotten. */
const REMEMBERED = 1 << 16
/** A word that is longer is a text without spaces, which hardly comes again. */
const LONGEST = 64
const BORDER = /(?<=\S)(?= \p{L})/u
const SPACE = 0x20
const DELETE = 0x7f

/** Patterns whose pieces end before a single space and take it along with the letters behind: Llama 3's and Qwen 2's. */
const PATTERNS: ReadonlySet<string> = new Set(
  ['{1,3}', ''].map(
    (digits) =>
      `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}${digits}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+`,
  ),
)

/** `encode`, word by word; null where a tokenizer is not known to part texts there. */
export function encodeWords(encode: Encode, tokenizer: object): Encode | null {
  if (!partsAtWords(tokenizer as TokenizerJson)) return null
  const known = new Map<string, readonly number[]>()
  return (text) => {
    const ids: number[] = []
    for (const word of wordsOf(text)) {
      let own = known.get(word)
      if (!own) {
        own = encode(word)
        if (known.size >= REMEMBERED) known.clear()
        if (word.length <= LONGEST) known.set(word, own)
      }
      for (const id of own) ids.push(id)
    }
    return ids
  }
}

/** `text.split(BORDER)`: the characters of ASCII, which are nearly all there are, are looked at one by one, in a fifth of the time. */
export function wordsOf(text: string): string[] {
  const words: string[] = []
  let start = 0
  for (let at = text.indexOf(' ', 1); at >= 0; at = text.indexOf(' ', at + 1)) {
    if (!isBorder(text, at)) continue
    words.push(text.slice(start, at))
    start = at
  }
  words.push(text.slice(start))
  return words
}

/** Whether no space stands before the one at `at`, and a letter behind it. */
function isBorder(text: string, at: number): boolean {
  const [before, behind] = [text.charCodeAt(at - 1), text.charCodeAt(at + 1)]
  if (before > SPACE && before < DELETE && behind < DELETE) return isLetter(behind)
  return BORDER.test(text.slice(Math.max(0, at - 2), at + 3)) // the characters beside it, be they of two units
}

/** Of ASCII. */
function isLetter(code: number): boolean {
  const lower = code | SPACE
  return lower >= 0x61 && lower <= 0x7a
}

function partsAtWords({ normalizer, pre_tokenizer: pre, model }: TokenizerJson): boolean {
  if (model.type !== 'BPE' || !pre || (normalizer && normalizer.type !== 'NFC')) return false
  const steps = pre.type === 'Sequence' ? (pre.pretokenizers ?? []) : [pre]
  return steps.some(parts) && steps.every((step) => parts(step) || keepsSpaces(step))
}

/** GPT-2's own pattern, or one of those that are known. */
function parts({ type, pattern, use_regex = true, add_prefix_space }: PreTokenizer): boolean {
  if (type === 'ByteLevel') return use_regex && add_prefix_space === false
  return type === 'Split' && PATTERNS.has(pattern?.Regex ?? '')
}

/** Steps that part further, whatever stands before and behind. */
function keepsSpaces({ type, use_regex, add_prefix_space }: PreTokenizer): boolean {
  return type === 'Digits' || (type === 'ByteLevel' && use_regex === false && add_prefix_space === false)
}
