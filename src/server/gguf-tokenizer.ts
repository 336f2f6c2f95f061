// A GGUF file's tokenizer metadata, written as the tokenizer.json that Hugging Face would ship for the same model.

import type { GgufMetadata } from '../engine/gguf'
import { ModelError } from '../errors'

/** GGUF's token types that never come out of merges. */
const CONTROL = 3
const USER_DEFINED = 4

const BYTE_LEVEL = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true }
const splitThenBytes = (regex: string) => ({
  type: 'Sequence',
  pretokenizers: [
    { type: 'Split', pattern: { Regex: regex }, behavior: 'Isolated', invert: false },
    { ...BYTE_LEVEL, use_regex: false },
  ],
})

const QWEN2_REGEX =
  "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
const LLAMA3_REGEX = QWEN2_REGEX.replace('\\p{N}| ?', '\\p{N}{1,3}| ?')

interface Family {
  readonly preTokenizer: object
  readonly normalizer?: object
  /** A piece that is a token as a whole is not merged from its parts. */
  readonly ignoreMerges?: boolean
}

/** By `tokenizer.ggml.pre`, llama.cpp's name of the way text is cut before merging. */
export const GGUF_FAMILIES: Readonly<Record<string, Family>> = {
  'gpt-2': { preTokenizer: BYTE_LEVEL },
  smollm: { preTokenizer: { type: 'Sequence', pretokenizers: [{ type: 'Digits', individual_digits: true }, BYTE_LEVEL] } },
  qwen2: { preTokenizer: splitThenBytes(QWEN2_REGEX), normalizer: { type: 'NFC' } },
  'llama-bpe': { preTokenizer: splitThenBytes(LLAMA3_REGEX), ignoreMerges: true },
}

/** The two JSON files of a tokenizer; `path` names the file in errors. */
export function ggufTokenizer(metadata: GgufMetadata, path: string): { tokenizer: object; config: Record<string, unknown> } {
  const value = (key: string): unknown => metadata[`tokenizer.ggml.${key}`]
  const tokens = value('tokens') as string[] | undefined
  const merges = value('merges') as string[] | undefined
  if (value('model') !== 'gpt2' || !tokens || !merges)
    throw new ModelError(
      `${path}: its tokenizer is of kind "${value('model')}". Supported in GGUF: "gpt2" (byte-level BPE). Use the model's folder with tokenizer.json.`,
    )
  const family = GGUF_FAMILIES[String(value('pre') ?? 'gpt-2')]
  if (!family)
    throw new ModelError(
      `${path}: its pre-tokenizer is "${value('pre')}". Supported in GGUF: ${Object.keys(GGUF_FAMILIES).join(', ')}. Use the model's folder with tokenizer.json.`,
    )
  const types = (value('token_type') as number[] | undefined) ?? []
  const token = (key: string): string | null => tokens[value(key) as number] ?? null
  const bos = token('bos_token_id')
  return {
    tokenizer: {
      version: '1.0',
      added_tokens: addedTokens(tokens, types),
      normalizer: family.normalizer ?? null,
      pre_tokenizer: family.preTokenizer,
      post_processor: value('add_bos_token') === true && bos !== null ? bosFirst(bos, Number(value('bos_token_id'))) : null,
      decoder: BYTE_LEVEL,
      model: {
        type: 'BPE',
        vocab: Object.fromEntries(tokens.map((text, id) => [text, id])),
        merges,
        ignore_merges: family.ignoreMerges ?? false,
      },
    },
    config: {
      bos_token: bos,
      eos_token: token('eos_token_id'),
      unk_token: token('unknown_token_id'),
      pad_token: token('padding_token_id'),
      chat_template: metadata['tokenizer.chat_template'],
    },
  }
}

function addedTokens(tokens: readonly string[], types: readonly number[]): object[] {
  return tokens.flatMap((content, id) => {
    if (types[id] !== CONTROL && types[id] !== USER_DEFINED) return []
    const special = types[id] === CONTROL
    return [{ id, content, special, single_word: false, lstrip: false, rstrip: false, normalized: false }]
  })
}

function bosFirst(bos: string, id: number): object {
  return {
    type: 'TemplateProcessing',
    single: [{ SpecialToken: { id: bos, type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }],
    pair: [],
    special_tokens: { [bos]: { id: bos, ids: [id], tokens: [bos] } },
  }
}
