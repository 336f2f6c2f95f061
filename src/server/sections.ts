// Tokenizing by sections. Special tokens part a text into sections that don't know of each other; those that come again are tokenized once.

type Encode = (text: string) => number[]

/** An added token, as a tokenizer's file has it. */
export interface AddedToken {
  readonly content: string
  readonly lstrip: boolean
  readonly rstrip: boolean
  readonly normalized: boolean
}

/** Sections remembered: the system messages, questions and closing words of a step. */
const REMEMBERED = 1024

/**
 * `encode`, section by section: all prompts of a program begin with the same system message. Null where sections are not independent:
 * when an added token takes white space with it or is looked for in normalized text, or when the first section is treated otherwise than the rest.
 */
export function encodeSections(encode: Encode, tokens: readonly AddedToken[], preTokenizer: unknown): Encode | null {
  const dependent = tokens.some(({ lstrip, rstrip, normalized }) => lstrip || rstrip || normalized)
  if (tokens.length === 0 || dependent || /Metaspace|"add_prefix_space":true/.test(JSON.stringify(preTokenizer ?? null)))
    return null
  const longestFirst = tokens.map(({ content }) => content).sort((a, b) => b.length - a.length)
  const border = new RegExp(`(${longestFirst.map(escaped).join('|')})`)
  const known = new Map<string, readonly number[]>() // oldest first
  const section = (text: string): readonly number[] => {
    let ids = known.get(text)
    if (ids) known.delete(text)
    known.set(text, (ids ??= encode(text)))
    if (known.size > REMEMBERED) known.delete(known.keys().next().value!)
    return ids
  }
  return (text) => text.split(border).flatMap((part) => (part === '' ? [] : section(part)))
}

const escaped = (text: string) => text.replace(/[.*+?^${}()|[\]\\/]/g, '\\$&')
