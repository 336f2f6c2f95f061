// A policy of all weights on disk: a model folder as Hugging Face has it, in f32, with the optimizer's state beside it. What is saved and
// loaded again has the same bits.

import { copyFileSync, existsSync, mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { ModelError } from '../errors'
import { FullWeights } from './full-weights'
import type { LoadOptions } from './lora-file'
import type { ModelConfig } from './model-config'
import { readStack } from './model-weights'
import type { Backend, Tensor } from './ops/ops'
import { type HostTensor, readSafetensors, writeSafetensors } from './safetensors'
import { replaceFile, writeJson } from './whole-file'

const MODEL = 'model.safetensors'
const OPTIMIZER = 'optimizer.safetensors'
const CONFIG = 'config.json'
/** What makes a folder of weights a chat model. */
const COMPANIONS = ['generation_config.json', 'tokenizer.json', 'tokenizer_config.json', 'chat_template.jinja']

/**
 * Writes model.safetensors and optimizer.safetensors (AdamW's m and v) into `dir`, and config.json and the tokenizer of the base where
 * `baseFolder` has them; each under a temporary name first. Other files there are left alone.
 */
export async function saveFull(weights: FullWeights, dir: string, options: { baseFolder?: string } = {}): Promise<void> {
  const model = new Map<string, HostTensor>()
  const optimizer = new Map<string, HostTensor>()
  for (const { stack, param, m, v } of weights.trainables) {
    const [values, first, second] = await Promise.all([param, m, v].map((t) => toHost(weights.backend, t)))
    let offset = 0
    for (const [name, rows] of stack.pieces) {
      const shape = stack.columns === null ? [rows] : [rows, stack.columns]
      const end = offset + rows * (stack.columns ?? 1)
      model.set(name, { shape, data: values!.subarray(offset, end) })
      optimizer.set(`${name}.m`, { shape, data: first!.subarray(offset, end) })
      optimizer.set(`${name}.v`, { shape, data: second!.subarray(offset, end) })
      offset = end
    }
  }
  const counters = { format: 'pt', step: String(weights.step), policy_version: String(weights.policyVersion) }
  mkdirSync(dir, { recursive: true })
  if (options.baseFolder !== undefined) copyModelFiles(options.baseFolder, dir)
  writeSafetensors(join(dir, MODEL), model, counters)
  writeSafetensors(join(dir, OPTIMIZER), optimizer, counters)
}

/**
 * Reads what `saveFull` wrote, with its optimizer state and counters; a model folder without them starts with fresh ones.
 * Throws ModelError when a file is missing, cut short, or holds another model than the base.
 */
export function loadFull(backend: Backend, config: ModelConfig, dir: string, options: LoadOptions = {}): FullWeights {
  const file = readSafetensors(join(dir, MODEL))
  const { frozen = false, fresh = false } = options
  try {
    const weights = FullWeights.read(backend, { config, weights: file }, { frozen })
    if (frozen) weights.policyVersion = Number(file.metadata['policy_version'] ?? 0)
    else if (!fresh && existsSync(join(dir, OPTIMIZER))) readOptimizer(weights, dir, file.metadata['step'])
    return weights
  } finally {
    file.close()
  }
}

function readOptimizer(weights: FullWeights, dir: string, step: string | undefined): void {
  const file = readSafetensors(join(dir, OPTIMIZER))
  try {
    if (step !== file.metadata['step'])
      throw new ModelError(
        `${dir}: ${MODEL} is of step ${step}, ${OPTIMIZER} of ${file.metadata['step']}. Use an earlier checkpoint.`,
      )
    for (const { stack, m, v } of weights.trainables) {
      weights.backend.upload(m, readStack(file, stack, '.m'))
      weights.backend.upload(v, readStack(file, stack, '.v'))
    }
    weights.step = Number(file.metadata['step'])
    weights.policyVersion = Number(file.metadata['policy_version'])
  } catch (error) {
    weights.close()
    throw error
  } finally {
    file.close()
  }
}

function copyModelFiles(from: string, to: string): void {
  if (existsSync(join(from, CONFIG))) {
    const { torch_dtype: _, ...config } = JSON.parse(readFileSync(join(from, CONFIG), 'utf8')) as Record<string, unknown>
    writeJson(join(to, CONFIG), { ...config, dtype: 'float32' })
  }
  for (const name of COMPANIONS)
    if (existsSync(join(from, name))) replaceFile(join(to, name), (path) => copyFileSync(join(from, name), path))
}

async function toHost(backend: Backend, tensor: Tensor): Promise<Float32Array> {
  return (await backend.download(tensor)) as Float32Array
}
