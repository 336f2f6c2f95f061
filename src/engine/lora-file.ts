// An adapter on disk, in peft's format, with the optimizer's state beside it: what is saved and loaded again has the same bits.

import { existsSync, mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { ModelError } from '../errors'
import { LORA_TARGETS, type LoraSpec, type LoraTarget } from './engine'
import { LoraWeights } from './lora'
import type { ModelConfig } from './model-config'
import type { Backend, Tensor } from './ops/ops'
import type { Trainable } from './policy-weights'
import { type HostTensor, readSafetensors, type SafetensorsFile, writeSafetensors } from './safetensors'
import { writeJson } from './whole-file'

const CONFIG = 'adapter_config.json'
export const ADAPTER = 'adapter_model.safetensors'
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

export interface LoadOptions {
  /** To be asked only. */
  readonly frozen?: boolean
  /** The weights alone: counters and optimizer start anew. */
  readonly fresh?: boolean
}

/**
 * Reads an adapter that `saveLora` wrote, with its optimizer state and counters; one that peft wrote starts with fresh ones.
 * Throws ModelError when a file is missing, cut short, or the adapter was made for another model.
 */
export function loadLora(backend: Backend, config: ModelConfig, dir: string, options: LoadOptions = {}): LoraWeights {
  const { frozen = false, fresh = false } = options
  const weights = LoraWeights.empty(backend, config, { ...readLoraSpec(dir), frozen })
  try {
    const adapter = readInto(weights, join(dir, ADAPTER), [{ suffix: '', field: 'param' }])
    checkNothingElse(weights, join(dir, ADAPTER))
    if (frozen) weights.policyVersion = Number(adapter['policy_version'] ?? 0)
    if (frozen || fresh || !existsSync(join(dir, OPTIMIZER))) return weights
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

export function isAdapterFolder(dir: string): boolean {
  return existsSync(join(dir, CONFIG))
}

/** Fields of peft's config that change what an adapter computes, and that we don't compute. */
const UNSUPPORTED = [
  'use_dora',
  'modules_to_save',
  'rank_pattern',
  'alpha_pattern',
  'layers_to_transform',
  'layer_replication',
  'fan_in_fan_out',
  'lora_bias',
  'trainable_token_indices',
  'target_parameters',
  'alora_invocation_tokens',
  'use_qalora',
  'use_bdlora',
  'kasa_config',
  'monteclora_config',
  'velora_config',
] as const

/** First values that change the base's weights as well: the adapter alone is only half of it. */
const BASE_CHANGING = /^(pissa|olora|corda|lora_ga)/

/**
 * What adapter_config.json says; rsLoRA's scale, alpha / √r, is said as the alpha of a plain adapter.
 * Throws ModelError for a kind of adapter that we don't compute.
 */
export function readLoraSpec(dir: string): LoraSpec {
  const path = join(dir, CONFIG)
  const json = readJson(path)
  const unusual = UNSUPPORTED.find((key) => isSet(json[key]))
  if (json['peft_type'] !== 'LORA' || unusual !== undefined)
    throw new ModelError(`${path}: ${unusual ?? `peft_type "${json['peft_type']}"`} is not supported; plain LoRA is.`)
  if (BASE_CHANGING.test(String(json['init_lora_weights'])))
    throw new ModelError(
      `${path}: init_lora_weights "${json['init_lora_weights']}" changed the base as well. Save the adapter with peft's path_initial_model_for_weight_conversion.`,
    )
  if (isSet(json['bias']) && json['bias'] !== 'none')
    throw new ModelError(`${path}: bias "${json['bias']}" is not supported; "none" is.`)
  const targets = json['target_modules']
  const rank = Number(json['r'])
  return {
    rank,
    alpha: Number(json['lora_alpha']) * (json['use_rslora'] === true ? Math.sqrt(rank) : 1),
    dropout: Number(json['lora_dropout'] ?? 0),
    // A pattern ("all-linear", a regular expression, a longer path) is told by what the file holds.
    targets: isTargets(targets) ? targets : storedTargets(join(dir, ADAPTER)),
  }
}

function isTargets(value: unknown): value is LoraTarget[] {
  return Array.isArray(value) && value.every((name) => LORA_TARGETS.includes(name))
}

/** Those that the file holds, or may hold: one that we don't know is refused when the file is read. */
function storedTargets(path: string): LoraTarget[] {
  const file = readSafetensors(path)
  try {
    const modules = new Set(file.names.map((name) => /\.(\w+)\.lora_[AB]\.weight$/.exec(name)?.[1]))
    return LORA_TARGETS.filter((target) => modules.has(target))
  } finally {
    file.close()
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

/** An adapter with more parts (on the head, on the embedding) computes something else. */
function checkNothingElse(weights: LoraWeights, path: string): void {
  const own = new Set(weights.modules.flatMap(({ name }) => [`${name}.lora_A.weight`, `${name}.lora_B.weight`]))
  const file = readSafetensors(path)
  const stray = file.names.find((name) => !own.has(name))
  file.close()
  if (stray !== undefined)
    throw new ModelError(
      `${path}: its "${stray}" has no place in this model. Supported are plain LoRA parts on ${LORA_TARGETS.join(', ')}, in every layer.`,
    )
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
