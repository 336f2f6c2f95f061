// tokenizer.json and tokenizer_config.json as a GGUF file's metadata: the way back of server/gguf-tokenizer.ts.

import { entry, type GgufEntry } from '../engine/gguf-writer'
import type { ModelConfig } from '../engine/model-config'
import { ModelError } from '../errors'
import { GGUF_FAMILIES } from '../server/gguf-tokenizer'

export interface TokenizerFiles {
  readonly tokenizer: Readonly<Record<string, unknown>>
  readonly config: Readonly<Record<string, unknown>>
  readonly chatTemplate: string | null
}

interface AddedToken {
  readonly id: number
  readonly content: string
  readonly special?: boolean
}

interface Bpe {
  readonly type: string
  readonly vocab: Readonly<Record<string, number>>
  readonly merges: readonly (string | readonly [string, string])[]
  readonly ignore_merges?: boolean
}

/** llama.cpp's token types. */
const [NORMAL, CONTROL, USER_DEFINED, UNUSED] = [1, 3, 4, 5]

/** @throws ModelError for a tokenizer that GGUF, as we read it, has no name for; `where` names the model */
export function ggufVocabulary(files: TokenizerFiles, model: ModelConfig, where: string): Record<string, GgufEntry> {
  const bpe = files.tokenizer['model'] as Bpe
  if (bpe?.type !== 'BPE') throw unsupported(where, `its tokenizer is of kind "${bpe?.type}"`)
  const added = (files.tokenizer['added_tokens'] ?? []) as readonly AddedToken[]
  const texts = new Array<string>(model.vocab)
  const types = new Array<number>(model.vocab)
  for (let id = 0; id < model.vocab; id++) [texts[id], types[id]] = [`[PAD${id}]`, UNUSED]
  for (const [text, id] of Object.entries(bpe.vocab)) [texts[id], types[id]] = [text, NORMAL]
  for (const { id, content, special } of added) [texts[id], types[id]] = [content, special ? CONTROL : USER_DEFINED]
  if (texts.length > model.vocab) throw unsupported(where, `it has ${texts.length} tokens, the model ${model.vocab}`)
  return {
    'tokenizer.ggml.model': entry.text('gpt2'),
    'tokenizer.ggml.pre': entry.text(familyOf(files.tokenizer, bpe, where)),
    'tokenizer.ggml.tokens': entry.texts(texts),
    'tokenizer.ggml.token_type': entry.counts(types),
    'tokenizer.ggml.merges': entry.texts(bpe.merges.map((merge) => (typeof merge === 'string' ? merge : merge.join(' ')))),
    ...namedTokens(files, model, texts),
    'tokenizer.ggml.add_bos_token': entry.flag(startsWithBos(files.tokenizer)),
    ...(files.chatTemplate === null ? {} : { 'tokenizer.chat_template': entry.text(files.chatTemplate) }),
  }
}

/** GGUF has three places for tokens that end a turn; the tokenizer's own goes first. */
function namedTokens({ config }: TokenizerFiles, model: ModelConfig, texts: readonly string[]): Record<string, GgufEntry> {
  const idOf = (key: string): number | null => {
    const value = config[key]
    const text = typeof value === 'object' && value !== null ? (value as { content?: unknown }).content : value
    const id = typeof text === 'string' ? texts.indexOf(text) : -1
    return id < 0 ? null : id
  }
  const ends = [...new Set([idOf('eos_token'), ...model.eosTokenIds])].filter((id) => id !== null)
  const ids: [string, number | null | undefined][] = [
    ['bos_token_id', idOf('bos_token') ?? model.bosTokenId],
    ['eos_token_id', ends[0]],
    ['eot_token_id', ends[1]],
    ['eom_token_id', ends[2]],
    ['padding_token_id', idOf('pad_token')],
    ['unknown_token_id', idOf('unk_token')],
  ]
  return Object.fromEntries(
    ids.filter(([, id]) => id !== null && id !== undefined).map(([key, id]) => [`tokenizer.ggml.${key}`, entry.count(id!)]),
  )
}

/** llama.cpp's name for the way text is cut before merging. */
function familyOf(tokenizer: Readonly<Record<string, unknown>>, bpe: Bpe, where: string): string {
  const normalizer = (tokenizer['normalizer'] ?? null) as { type?: string } | null
  if (normalizer !== null && normalizer.type !== 'NFC') throw unsupported(where, `it normalizes text by "${normalizer.type}"`)
  const wanted = cutting(tokenizer['pre_tokenizer'])
  const found = Object.entries(GGUF_FAMILIES).find(
    ([, family]) => cutting(family.preTokenizer) === wanted && (family.ignoreMerges ?? false) === (bpe.ignore_merges ?? false),
  )
  if (!found) throw unsupported(where, 'it cuts text in a way that none of these does')
  return found[0]
}

interface Step {
  readonly type: string
  readonly pretokenizers?: readonly Step[]
  readonly [option: string]: unknown
}

/** A pre-tokenizer's steps with the options that matter, as text. */
function cutting(step: unknown): string {
  const { type, pretokenizers, ...options } = (step ?? { type: 'none' }) as Step
  if (type === 'Sequence') return (pretokenizers ?? []).map(cutting).join(' ')
  const read: Readonly<Record<string, () => unknown[]>> = {
    ByteLevel: () => [options['add_prefix_space'] ?? true, options['use_regex'] ?? true],
    Digits: () => [options['individual_digits'] ?? false],
    Split: () => [options['pattern'], options['behavior'], options['invert'] ?? false],
  }
  return JSON.stringify([type, ...(read[type]?.() ?? [options])])
}

function startsWithBos(tokenizer: Readonly<Record<string, unknown>>): boolean {
  return JSON.stringify(tokenizer['post_processor'] ?? null).includes('"single":[{"SpecialToken"')
}

function unsupported(where: string, what: string): ModelError {
  return new ModelError(
    `${where}: its tokenizer can't be told in a GGUF file: ${what}. Supported are byte-level BPE cut as ${Object.keys(GGUF_FAMILIES).join(', ')}. Export a model folder; llama.cpp's converter reads it.`,
  )
}
