// A base model's tokenizer, for the files of a model made from it.

import { copyFileSync, existsSync } from 'node:fs'
import { join } from 'node:path'
import type { ModelSource } from '../engine/engine'
import { ggufMetadata } from '../engine/gguf'
import { readJson, writeJson } from '../engine/whole-file'
import { ggufTokenizer } from '../server/gguf-tokenizer'
import { loadTokenizer } from '../server/tokenizer'
import type { TokenizerFiles } from './gguf-vocabulary'

/** What may lie beside a Hugging Face model's weights and belongs to its text. */
const COMPANIONS = [
  'generation_config.json',
  'tokenizer.json',
  'tokenizer_config.json',
  'special_tokens_map.json',
  'added_tokens.json',
  'vocab.json',
  'merges.txt',
  'tokenizer.model',
  'chat_template.jinja',
]

/** The tokenizer as Hugging Face would ship it, wherever it comes from. */
export async function tokenizerFiles(base: ModelSource): Promise<TokenizerFiles> {
  const { chatTemplate } = await loadTokenizer(base)
  if (base.kind === 'gguf') return { ...ggufFiles(await ggufMetadata(base.path), base.path), chatTemplate }
  const config = join(base.path, 'tokenizer_config.json')
  return {
    tokenizer: readJson(join(base.path, 'tokenizer.json')),
    config: existsSync(config) ? readJson(config) : {},
    chatTemplate,
  }
}

/** Puts the base's tokenizer and generation_config.json into `dir`. */
export async function writeTokenizerFiles(base: ModelSource, dir: string): Promise<void> {
  if (base.kind === 'folder') {
    for (const name of COMPANIONS) if (existsSync(join(base.path, name))) copyFileSync(join(base.path, name), join(dir, name))
    return
  }
  const { tokenizer, config } = await tokenizerFiles(base)
  const told = Object.entries(config).filter(([, value]) => value !== null && value !== undefined)
  writeJson(join(dir, 'tokenizer.json'), tokenizer)
  writeJson(join(dir, 'tokenizer_config.json'), { tokenizer_class: 'PreTrainedTokenizerFast', ...Object.fromEntries(told) })
}

function ggufFiles(...args: Parameters<typeof ggufTokenizer>): Omit<TokenizerFiles, 'chatTemplate'> {
  const { tokenizer, config } = ggufTokenizer(...args)
  return { tokenizer: tokenizer as Record<string, unknown>, config }
}
