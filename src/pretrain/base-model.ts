// What a run starts from: a tokenizer trained on the documents, and weights drawn at random.

import { join } from 'node:path'
import { initialWeights } from '../engine/init-weights'
import { modelConfig } from '../engine/model-config'
import { writeSafetensors } from '../engine/safetensors'
import { trainBpe } from './bpe'
import { writeJson } from './files'
import type { Recipe } from './recipe'
import { configJson, modelSize } from './sizes'
import { SPECIAL_TOKENS, writeTokenizer } from './tokenizer-files'
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
