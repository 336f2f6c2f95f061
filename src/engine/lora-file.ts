// An adapter on disk, in peft's format, with the optimizer's state beside it: what is saved and loaded again has the same bits.

import { existsSync, mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { ModelError } from '../errors'
import type { LoraSpec, LoraTarget } from './engine'
import { LoraWeights } from './lora'
import type { ModelConfig } from './model-config'
import type { Backend, Tensor } from './ops/ops'
import type { Trainable } from './policy-weights'
import { type HostTensor, readSafetensors, type SafetensorsFile, writeSafetensors } from './safetensors'
import { writeJson } from './whole-file'

const CONFIG = 'adapter_config.json'
const ADAPTER = 'adapter_model.safetensors'
const OPTIMIZER = 'optimizer.safetensors'

/**
 * Writes adapter_config.json, adapter_model.safetensors (what peft reads) and optimizer.safetensors (AdamW's m and v) into `dir`,
 * each under a temporary name first. Other files there are left alone.
 */
export async function saveLora(weights: LoraWeights, dir: string, options: { baseModel?: string } = {}): Promise<void> {
  const adapter = new Map<string, HostTensor>()
  const optimizer = new Map<string, HostTensor>()
  for (const { name, a, b } of weights.modules)
    for (const [part, { param, m, v }] of [['lora_A', a] as const, ['lora_B', b] as const]) {
      adapter.set(`${name}.${part}.weight`, await toHost(weights.backend, param))
      optimizer.set(`${name}.${part}.weight.m`, await toHost(weights.backend, m))
      optimizer.set(`${name}.${part}.weight.v`, await toHost(weights.backend, v))
    }
  const counters = { step: String(weights.step), policy_version: String(weights.policyVersion) }
  mkdirSync(dir, { recursive: true })
  writeJson(join(dir, CONFIG), peftConfig(weights.spec, options.baseModel))
  writeSafetensors(join(dir, ADAPTER), adapter, { format: 'pt', ...counters })
  writeSafetensors(join(dir, OPTIMIZER), optimizer, { format: 'pt', ...counters })
}

/**
 * Reads an adapter that `saveLora` wrote, with its optimizer state and counters; one that peft wrote starts with fresh ones.
 * Throws ModelError when a file is missing, cut short, or the adapter was made for another model.
 */
export function loadLora(backend: Backend, config: ModelConfig, dir: string): LoraWeights {
  const weights = LoraWeights.empty(backend, config, readLoraSpec(dir))
  try {
    const adapter = readInto(weights, join(dir, ADAPTER), [{ suffix: '', field: 'param' }])
    if (!existsSync(join(dir, OPTIMIZER))) return weights
    const moments = [{ suffix: '.m', field: 'm' } as const, { suffix: '.v', field: 'v' } as const]
    const optimizer = readInto(weights, join(dir, OPTIMIZER), moments)
    if (adapter['step'] !== optimizer['step'])
      throw new ModelError(
        `${dir}: ${ADAPTER} is of step ${adapter['step']}, ${OPTIMIZER} of ${optimizer['step']}. Use an earlier checkpoint.`,
      )
    weights.step = Number(optimizer['step'])
    weights.policyVersion = Number(optimizer['policy_version'])
    return weights
  } catch (error) {
    weights.close()
    throw error
  }
}

/** What adapter_config.json says. Throws ModelError for a kind of adapter that we don't compute. */
export function readLoraSpec(dir: string): LoraSpec {
  const path = join(dir, CONFIG)
  const json = readJson(path)
  const unusual = ['use_dora', 'use_rslora', 'modules_to_save', 'rank_pattern', 'alpha_pattern'].find((key) => isSet(json[key]))
  if (json['peft_type'] !== 'LORA' || unusual !== undefined)
    throw new ModelError(`${path}: ${unusual ?? `peft_type "${json['peft_type']}"`} is not supported; plain LoRA is.`)
  const targets = json['target_modules']
  if (!Array.isArray(targets)) throw new ModelError(`${path}: target_modules must be a list of module names.`)
  return {
    rank: Number(json['r']),
    alpha: Number(json['lora_alpha']),
    dropout: Number(json['lora_dropout'] ?? 0),
    targets: targets as LoraTarget[],
  }
}

function peftConfig({ rank, alpha, dropout, targets }: LoraSpec, baseModel?: string): Record<string, unknown> {
  return {
    peft_type: 'LORA',
    task_type: 'CAUSAL_LM',
    base_model_name_or_path: baseModel ?? null,
    r: rank,
    lora_alpha: alpha,
    lora_dropout: dropout,
    target_modules: targets,
    bias: 'none',
    fan_in_fan_out: false,
    inference_mode: true,
    init_lora_weights: true,
    modules_to_save: null,
  }
}

/** Uploads every module's tensors from one file; returns the file's metadata. */
function readInto(
  weights: LoraWeights,
  path: string,
  fields: readonly { readonly suffix: string; readonly field: keyof Trainable }[],
): Readonly<Record<string, string>> {
  const file = readSafetensors(path)
  try {
    for (const { name, a, b } of weights.modules)
      for (const { suffix, field } of fields) {
        readTensor(weights.backend, file, { path, name: `${name}.lora_A.weight${suffix}`, to: a[field] })
        readTensor(weights.backend, file, { path, name: `${name}.lora_B.weight${suffix}`, to: b[field] })
      }
    return file.metadata
  } finally {
    file.close()
  }
}

function readTensor(
  backend: Backend,
  file: SafetensorsFile,
  { path, name, to }: { path: string; name: string; to: Tensor },
): void {
  if (String(file.shape(name)) !== String(to.shape))
    throw new ModelError(
      `${path}: "${name}" has shape [${file.shape(name)}], this model needs [${to.shape}]. Is it another model's?`,
    )
  backend.upload(to, file.read(name))
}

async function toHost(backend: Backend, tensor: Tensor): Promise<HostTensor> {
  return { shape: tensor.shape, data: (await backend.download(tensor)) as Float32Array }
}

function readJson(path: string): Record<string, unknown> {
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as Record<string, unknown>
  } catch (cause) {
    throw new ModelError(`${path} can't be read: ${(cause as Error).message}`, { cause })
  }
}

function isSet(value: unknown): boolean {
  return (
    value !== undefined && value !== null && value !== false && !(typeof value === 'object' && Object.keys(value).length === 0)
  )
}
