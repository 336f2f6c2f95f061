// A model's configuration and weights, whatever files it comes in.

import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { ModelError } from '../errors'
import type { ModelSource } from './engine'
import { ggufConfig, openGguf } from './gguf'
import { modelConfig } from './model-config'
import { readSafetensorsFolder } from './safetensors'
import type { OpenModel } from './weights'

/** Opens a folder (config.json + safetensors) or a GGUF file. The caller closes `weights`. */
export async function openModel(source: ModelSource): Promise<OpenModel> {
  return source.kind === 'gguf' ? openGgufModel(source.path) : openFolder(source.path)
}

async function openGgufModel(path: string): Promise<OpenModel> {
  const file = await openGguf(path)
  try {
    return { config: modelConfig(ggufConfig(file), path), weights: file.weights }
  } catch (error) {
    file.weights.close()
    throw error
  }
}

function openFolder(folder: string): OpenModel {
  const path = join(folder, 'config.json')
  const json = readJson(path)
  const generationPath = join(folder, 'generation_config.json')
  // Chat models often name their end-of-turn token only here.
  const generation = existsSync(generationPath) ? readJson(generationPath) : {}
  const eos = [json['eos_token_id'], generation['eos_token_id']].flat().filter((id) => typeof id === 'number')
  const config = modelConfig({ ...json, eos_token_id: [...new Set(eos)] }, path)
  return { config, weights: readSafetensorsFolder(folder) }
}

function readJson(path: string): Record<string, unknown> {
  if (!existsSync(path))
    throw new ModelError(`${path}: missing. A model folder holds config.json, tokenizer.json and safetensors.`)
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as Record<string, unknown>
  } catch (cause) {
    throw new ModelError(`${path}: not JSON (${(cause as Error).message}).`, { cause })
  }
}
