// A trained vocabulary as the files that transformers' AutoTokenizer and @huggingface/tokenizers read, and back.

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { writeJson } from '../engine/whole-file'
import { ModelError } from '../errors'
import type { Bpe } from './bpe'

/** Ids 0, 1, 2: the end of a text and padding, the beginning and the end of a chat turn. */
export const SPECIAL_TOKENS = ['<|endoftext|>', '<|im_start|>', '<|im_end|>'] as const
export const PAD_TOKEN_ID = 0
export const END_OF_TURN_ID = 2

/** What writeTokenizer writes. */
export const TOKENIZER_FILES = ['tokenizer.json', 'tokenizer_config.json', 'generation_config.json'] as const

/** ChatML. */
export const CHAT_TEMPLATE =
  "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}{% endfor %}" +
  "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"

/** Writes tokenizer.json, tokenizer_config.json and generation_config.json. */
export function writeTokenizer(folder: string, bpe: Bpe, { contextLength }: { contextLength: number }): void {
  writeJson(join(folder, 'tokenizer.json'), tokenizerJson(bpe))
  writeJson(join(folder, 'tokenizer_config.json'), {
    tokenizer_class: 'PreTrainedTokenizerFast',
    bos_token: null,
    eos_token: SPECIAL_TOKENS[END_OF_TURN_ID],
    pad_token: SPECIAL_TOKENS[PAD_TOKEN_ID],
    chat_template: CHAT_TEMPLATE,
    model_max_length: contextLength,
    clean_up_tokenization_spaces: false,
  })
  writeJson(join(folder, 'generation_config.json'), { eos_token_id: [END_OF_TURN_ID], pad_token_id: PAD_TOKEN_ID })
}

/** The vocabulary of a folder that writeTokenizer wrote. @throws ModelError when its tokenizer.json is something else */
export function readTokenizer(folder: string): Bpe {
  const path = join(folder, 'tokenizer.json')
  try {
    const { model, added_tokens } = JSON.parse(readFileSync(path, 'utf8')) as TokenizerJson
    const tokens = Object.keys(model.vocab)
    const idOf = (token: string) => model.vocab[token]!
    const merges = model.merges.map(([left, right]) => ({ left: idOf(left), right: idOf(right), token: idOf(left + right) }))
    return { specials: added_tokens.map(({ content }) => content), tokens: tokens.sort((a, b) => idOf(a) - idOf(b)), merges }
  } catch (cause) {
    throw new ModelError(`${path}: not a tokenizer of this command (${(cause as Error).message}).`, { cause })
  }
}

interface TokenizerJson {
  readonly added_tokens: readonly { readonly content: string }[]
  readonly model: { readonly vocab: Readonly<Record<string, number>>; readonly merges: readonly (readonly [string, string])[] }
}

function tokenizerJson({ specials, tokens, merges }: Bpe): object {
  const byteLevel = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true }
  const plain = { single_word: false, lstrip: false, rstrip: false, normalized: false, special: true }
  return {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: specials.map((content, id) => ({ id, content, ...plain })),
    normalizer: null,
    pre_tokenizer: { type: 'Sequence', pretokenizers: [{ type: 'Digits', individual_digits: true }, byteLevel] },
    post_processor: null,
    decoder: { ...byteLevel, add_prefix_space: true },
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: false,
      vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
      merges: merges.map(({ left, right }) => [tokens[left], tokens[right]]),
    },
  }
}
