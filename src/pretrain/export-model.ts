// The trained weights as a Hugging Face folder in bf16, called good only after it was loaded again and answered as the f32 weights do.

import { copyFileSync } from 'node:fs'
import { join } from 'node:path'
import { Tokenizer } from '@huggingface/tokenizers'
import type { Engine, TokenStats } from '../engine/engine'
import { type HostTensor, readSafetensors, writeSafetensors } from '../engine/safetensors'
import { readJson, writeJson } from '../engine/whole-file'
import { ModelError } from '../errors'
import type { Batch } from './batches'
import type { BpeEncoder } from './encoder'
import { configJson, type ModelSize } from './sizes'
import { TOKENIZER_FILES } from './tokenizer-files'

/** bf16 keeps 8 bits: a weight moves by up to 0.4 %, a logprob by a few thousandths on the mean. */
const MEAN_GAP_LIMIT = 0.02

export interface ExportCheck {
  /** Mean cross-entropy on held-out documents, of the f32 weights and of the exported ones. */
  readonly heldOutLoss: number
  readonly heldOutLossExported: number
  /** |logprob exported − logprob f32| over the held-out assistant tokens. */
  readonly meanGap: number
  readonly largestGap: number
}

/** Writes config.json, model.safetensors (bf16), tokenizer and generation_config.json into `folder`. */
export function writeModel(folder: string, from: { checkpoint: string; base: string; size: ModelSize }): void {
  const file = readSafetensors(join(from.checkpoint, 'model.safetensors'))
  try {
    const tensors = new Map<string, HostTensor>(
      file.names.map((name) => [name, { shape: file.shape(name), data: file.read(name) }]),
    )
    writeSafetensors(join(folder, 'model.safetensors'), tensors, { format: 'pt' }, { dtype: 'BF16' })
  } finally {
    file.close()
  }
  writeJson(join(folder, 'config.json'), configJson(from.size, 'bfloat16'))
  for (const name of TOKENIZER_FILES) copyFileSync(join(from.base, name), join(folder, name))
}

/** @throws ModelError when the model at `folder` answers otherwise than the weights that were trained */
export async function checkModel(
  folder: string,
  heldOut: { readonly batch: Batch; readonly stats: readonly TokenStats[] },
  engine: Engine,
): Promise<ExportCheck> {
  await engine.load({ name: 'exported', kind: 'folder', path: folder })
  const exported = await engine.logprobs(null, heldOut.batch.sequences, { temperature: 1 })
  const [before, after] = [heldOut.stats, exported].map((stats) => stats.flatMap(({ logprobs }) => [...logprobs]))
  const gaps = before!.map((value, i) => Math.abs(value - after![i]!))
  const check = {
    heldOutLoss: -mean(before!),
    heldOutLossExported: -mean(after!),
    meanGap: mean(gaps),
    largestGap: gaps.reduce((largest, gap) => Math.max(largest, gap), 0),
  }
  if (!(check.meanGap < MEAN_GAP_LIMIT))
    throw new ModelError(
      `${folder}: the exported model's logprobs are ${check.meanGap} away from the trained weights' on the mean (at most ${MEAN_GAP_LIMIT} is expected).`,
    )
  return check
}

/** @throws ModelError when the written tokenizer, read by the library that servers use, gives other tokens than training had */
export function checkTokenizer(folder: string, encoder: BpeEncoder, texts: readonly string[]): void {
  const tokenizer = new Tokenizer(readJson(join(folder, 'tokenizer.json')), readJson(join(folder, 'tokenizer_config.json')))
  for (const text of texts) {
    const [read, own] = [tokenizer.encode(text, { add_special_tokens: false }).ids, encoder.encode(text)]
    if (read.length !== own.length || read.some((id, i) => id !== own[i]))
      throw new ModelError(`${folder}: tokenizer.json encodes ${JSON.stringify(text.slice(0, 80))} otherwise than in training.`)
  }
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length
}
