// What a run starts from: a tokenizer trained on the documents, and weights drawn at random; or another model's.

import { createHash } from 'node:crypto'
import { copyFileSync, readFileSync } from 'node:fs'
import { basename, join, resolve } from 'node:path'
import { initialWeights } from '../engine/init-weights'
import { modelConfig } from '../engine/model-config'
import { type HostTensor, readSafetensors, writeSafetensors } from '../engine/safetensors'
import { readJson, writeJson } from '../engine/whole-file'
import { ModelError } from '../errors'
import { trainBpe } from './bpe'
import type { Recipe, StartingModel } from './recipe'
import { configJson, type ModelSize, modelSize } from './sizes'
import { SPECIAL_TOKENS, TOKENIZER_FILES, writeTokenizer } from './tokenizer-files'
import { countWords } from './words'

/** Fills a folder with a tokenizer trained on `texts` and the untrained model, in f32. The same recipe and texts give the same files. */
export function writeBaseModel(folder: string, recipe: Recipe, texts: Iterable<string>): void {
  const size = modelSize(recipe.size)
  // From few texts there may be fewer tokens than the model has room for; the rows without a token stay unused.
  const bpe = trainBpe(countWords(texts), { vocab: size.vocab, specials: SPECIAL_TOKENS })
  writeTokenizer(folder, bpe, size)
  const json = configJson(size, 'float32')
  writeJson(join(folder, 'config.json'), json)
  const weights = initialWeights(modelConfig(json, 'config.json'), recipe.seed)
  writeSafetensors(join(folder, 'model.safetensors'), weights, { format: 'pt' })
}

/** The model in a folder, to begin a run of `size` with. @throws ModelError when it is of another size, or no model of this command */
export function startingModel(folder: string, size: ModelSize): StartingModel {
  const expected = configJson(size, 'bfloat16')
  const config = readModelFile(folder, 'config.json', readJson)
  const other = Object.keys(expected).find(
    (key) => key !== 'dtype' && JSON.stringify(config[key]) !== JSON.stringify(expected[key]),
  )
  if (other !== undefined)
    throw new ModelError(
      `${folder}: its config.json has ${other} ${JSON.stringify(config[other])}, a run of this size ${JSON.stringify(expected[other])}. Choose the size that the model has.`,
    )
  const weights = readModelFile(folder, 'model.safetensors', readFileSync)
  return { name: basename(resolve(folder)), sha256: createHash('sha256').update(weights).digest('hex') }
}

/** Fills a folder with another model's tokenizer and, in f32, its weights. */
export function copyBaseModel(folder: string, from: string, size: ModelSize): void {
  for (const name of TOKENIZER_FILES) readModelFile(from, name, (path) => copyFileSync(path, join(folder, name)))
  writeJson(join(folder, 'config.json'), configJson(size, 'float32'))
  const file = readSafetensors(join(from, 'model.safetensors'))
  try {
    const tensor = (name: string): HostTensor => ({ shape: file.shape(name), data: file.read(name) })
    const tensors = new Map(file.names.map((name) => [name, tensor(name)]))
    writeSafetensors(join(folder, 'model.safetensors'), tensors, { format: 'pt' })
  } finally {
    file.close()
  }
}

function readModelFile<T>(folder: string, name: string, read: (path: string) => T): T {
  try {
    return read(join(folder, name))
  } catch (cause) {
    throw new ModelError(`${folder}: no model to begin with (${(cause as Error).message}).`, { cause })
  }
}
