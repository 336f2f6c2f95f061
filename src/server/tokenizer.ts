// Text to tokens and back, from a model's own files. The engine never sees text; this is where it enters and leaves.

import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Tokenizer as HuggingFaceTokenizer } from '@huggingface/tokenizers'
import type { ModelSource } from '../engine/engine'
import { ggufMetadata } from '../engine/gguf'
import { ModelError } from '../errors'
import { byteDecoder } from './byte-decoder'
import { ggufTokenizer } from './gguf-tokenizer'
import { type AddedToken, encodeSections } from './sections'
import { tokenBytes } from './token-bytes'
import { encodeWords } from './words'

export interface Tokenizer {
  /** `addSpecial` adds what the model's own post-processor adds (a BOS, say); off by default, since chat templates write it themselves. */
  encode(text: string, options?: { addSpecial?: boolean }): readonly number[]
  /** `skipSpecial` (default true) leaves out special tokens such as <|im_end|>. */
  decode(tokens: readonly number[], options?: { skipSpecial?: boolean }): string
  /** Text of a growing token list, piece by piece; a character split over tokens comes out whole. */
  stream(options?: { skipSpecial?: boolean }): TextStream
  readonly eosTokenIds: readonly number[]
  /** Special tokens by their text. */
  readonly specialTokens: ReadonlyMap<string, number>
  /** bos_token, eos_token and the like, as chat templates call them. */
  readonly namedTokens: Readonly<Record<string, string>>
  /** Jinja source, or null when the model has none. */
  readonly chatTemplate: string | null
  readonly vocab: number
  /** Each token's bytes as characters 0 to 255; null where a token has none: special ones, and ids without a token. */
  bytes(): readonly (string | null)[]
}

export interface TextStream {
  /** The text that `token` completes; '' while a character is still open. */
  push(token: number): string
  /** What is left at the end: an unfinished character shows as U+FFFD. */
  flush(): string
}

interface TokenizerFiles {
  readonly tokenizer: object
  readonly config: Readonly<Record<string, unknown>>
  readonly chatTemplate: string | null
  readonly eosTokenIds: readonly number[]
}

/** Reads tokenizer.json and tokenizer_config.json, or a GGUF file's metadata. Throws ModelError naming what is missing. */
export async function loadTokenizer(source: ModelSource): Promise<Tokenizer> {
  const files = source.kind === 'gguf' ? await ggufFiles(source.path) : folderFiles(source.path)
  let inner: HuggingFaceTokenizer
  try {
    inner = new HuggingFaceTokenizer(files.tokenizer, files.config)
  } catch (cause) {
    throw new ModelError(`${source.path}: its tokenizer cannot be read (${(cause as Error).message}).`, { cause })
  }
  return wrap(inner, files)
}

function wrap(inner: HuggingFaceTokenizer, files: TokenizerFiles): Tokenizer {
  const specialTokens = new Map<string, number>()
  for (const [id, token] of inner.get_added_tokens_decoder()) if (token.special) specialTokens.set(token.content, id)
  const namedTokens = namedTokensOf(files.config)
  const eos = namedTokens['eos_token'] === undefined ? undefined : inner.token_to_id(namedTokens['eos_token'])
  const fast = onlySpecial(files.config, specialTokens) ? byteDecoder(files.tokenizer, new Set(specialTokens.values())) : null
  const decode = (tokens: readonly number[], { skipSpecial = true }: { skipSpecial?: boolean } = {}): string => {
    if (tokens.length === 0) return ''
    const text = skipSpecial && fast ? fast(tokens) : null
    return text ?? inner.decode(tokens as number[], { skip_special_tokens: skipSpecial, clean_up_tokenization_spaces: false })
  }
  const whole = (text: string) => [...inner.encode(text, { add_special_tokens: false }).ids]
  const { added_tokens, pre_tokenizer } = files.tokenizer as { added_tokens?: AddedToken[]; pre_tokenizer?: unknown }
  const words = encodeWords(whole, files.tokenizer) ?? whole
  const plain = encodeSections(words, added_tokens ?? [], pre_tokenizer) ?? whole
  return {
    encode: (text, options = {}) =>
      options.addSpecial ? [...inner.encode(text, { add_special_tokens: true }).ids] : plain(text),
    decode,
    stream: (options = {}) => textStream((tokens) => decode(tokens, options)),
    eosTokenIds: [...new Set([...(eos === undefined ? [] : [eos]), ...files.eosTokenIds])],
    specialTokens,
    namedTokens,
    chatTemplate: files.chatTemplate,
    vocab: inner.get_vocab(true).size,
    bytes: () => tokenBytes(files.tokenizer),
  }
}

/**
 * Decodes a short window instead of the whole text: `start` is where the window begins, `read` the first token whose text is not out yet.
 * Text that ends in U+FFFD may be the beginning of a character, so it waits for what follows.
 */
function textStream(decode: (tokens: readonly number[]) => string): TextStream {
  const tokens: number[] = []
  let start = 0
  let read = 0
  const take = (final: boolean): string => {
    const before = decode(tokens.slice(start, read))
    const text = decode(tokens.slice(start))
    if (text.length <= before.length || (text.endsWith('\ufffd') && !final)) return ''
    start = read
    read = tokens.length
    return text.slice(before.length)
  }
  return {
    push: (token) => {
      tokens.push(token)
      return take(false)
    },
    flush: () => take(true),
  }
}

async function ggufFiles(path: string): Promise<TokenizerFiles> {
  const metadata = await ggufMetadata(path)
  const { tokenizer, config } = ggufTokenizer(metadata, path)
  const ids = ['eos_token_id', 'eot_token_id', 'eom_token_id'].map((key) => metadata[`tokenizer.ggml.${key}`])
  return { tokenizer, config, chatTemplate: templateText(config['chat_template']), eosTokenIds: numbers(ids) }
}

function folderFiles(folder: string): TokenizerFiles {
  const tokenizer = readJson(join(folder, 'tokenizer.json'))
  if (!tokenizer) throw new ModelError(`${join(folder, 'tokenizer.json')}: missing. A model folder needs its tokenizer.json.`)
  const config = readJson(join(folder, 'tokenizer_config.json')) ?? {}
  const generation = readJson(join(folder, 'generation_config.json')) ?? {}
  const model = readJson(join(folder, 'config.json')) ?? {}
  const templateFile = join(folder, 'chat_template.jinja')
  return {
    tokenizer,
    config,
    chatTemplate: existsSync(templateFile) ? readFileSync(templateFile, 'utf8') : templateText(config['chat_template']),
    eosTokenIds: numbers([model['eos_token_id'], generation['eos_token_id']].flat()),
  }
}

/** A template is a string, or a list of named ones of which "default" is the chat's. */
function templateText(value: unknown): string | null {
  if (typeof value === 'string') return value
  if (!Array.isArray(value)) return null
  const list = value as { name?: unknown; template?: unknown }[]
  const found = list.find((entry) => entry.name === 'default') ?? list[0]
  return typeof found?.template === 'string' ? found.template : null
}

/** Whether a tokenizer's configuration names no special tokens beyond those of its file. */
function onlySpecial(config: TokenizerFiles['config'], known: ReadonlyMap<string, number>): boolean {
  const further = config['additional_special_tokens']
  return !Array.isArray(further) || further.every((token) => typeof token === 'string' && known.has(token))
}

/** Named tokens stand as text or as an added-token object. */
function namedTokensOf(config: Readonly<Record<string, unknown>>): Record<string, string> {
  const named: Record<string, string> = {}
  for (const key of ['bos_token', 'eos_token', 'unk_token', 'pad_token']) {
    const value = config[key]
    const text = typeof value === 'object' && value !== null ? (value as { content?: unknown }).content : value
    if (typeof text === 'string') named[key] = text
  }
  return named
}

function numbers(values: readonly unknown[]): number[] {
  return values.filter((value): value is number => typeof value === 'number')
}

function readJson(path: string): Record<string, unknown> | null {
  if (!existsSync(path)) return null
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as Record<string, unknown>
  } catch (cause) {
    throw new ModelError(`${path}: not JSON (${(cause as Error).message}).`, { cause })
  }
}
