// A model folder as Hugging Face has it: config.json and the weights, in one file or in shards with an index.

import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { ModelError } from '../errors'
import type { ModelConfig } from './model-config'
import { type HostTensor, type SafetensorsType, writeSafetensors } from './safetensors'
import type { OpenModel, WeightFile } from './weights'
import { writeJson } from './whole-file'

export const FOLDER_TYPES = ['f32', 'f16', 'bf16'] as const
export type FolderType = (typeof FOLDER_TYPES)[number]

const STORED: Readonly<Record<FolderType, { readonly type: SafetensorsType; readonly bytes: number; readonly name: string }>> = {
  f32: { type: 'F32', bytes: 4, name: 'float32' },
  f16: { type: 'F16', bytes: 2, name: 'float16' },
  bf16: { type: 'BF16', bytes: 2, name: 'bfloat16' },
}

export interface FolderOptions {
  readonly type: FolderType
  /** The base's own config.json, where it has one: fields that we don't know go along. */
  readonly baseConfig?: Readonly<Record<string, unknown>> | null
  /** Bytes of weights in one file; default 5 GB, as transformers has it. */
  readonly shardBytes?: number
}

/** Writes config.json and model.safetensors (or its shards) into `dir`. Tensors are read one at a time. */
export function writeModelFolder(dir: string, { config, weights }: OpenModel, options: FolderOptions): void {
  const { type, baseConfig, shardBytes = 5e9 } = options
  mkdirSync(dir, { recursive: true })
  const { torch_dtype: _, quantization_config: __, ...base } = baseConfig ?? configFields(config)
  const tied = !weights.has('lm_head.weight') // what was written decides, also where the base's config left it open
  writeJson(join(dir, 'config.json'), { ...base, tie_word_embeddings: tied, dtype: STORED[type].name })
  const shards = cut(weights, STORED[type].bytes, shardBytes)
  const fileOf = (i: number) =>
    shards.length === 1 ? 'model.safetensors' : `model-${five(i + 1)}-of-${five(shards.length)}.safetensors`
  for (const [i, names] of shards.entries()) {
    const tensors = new Map(names.map((name) => [name, lazyTensor(weights, name)]))
    writeSafetensors(join(dir, fileOf(i)), tensors, { format: 'pt' }, { dtype: STORED[type].type })
  }
  if (shards.length === 1) return
  const weightMap = Object.fromEntries(shards.flatMap((names, i) => names.map((name) => [name, fileOf(i)])))
  const total = weights.names.reduce((sum, name) => sum + sizeOf(weights, name) * STORED[type].bytes, 0)
  writeJson(join(dir, 'model.safetensors.index.json'), { metadata: { total_size: total }, weight_map: weightMap })
}

function lazyTensor(weights: WeightFile, name: string): HostTensor {
  return {
    shape: weights.shape(name),
    get data() {
      return weights.read(name)
    },
  }
}

/** In order, each shard as full as it may be; a tensor larger than a shard has one to itself. */
function cut(weights: WeightFile, bytes: number, limit: number): string[][] {
  const shards: string[][] = [[]]
  let filled = 0
  for (const name of weights.names) {
    const size = sizeOf(weights, name) * bytes
    if (filled > 0 && filled + size > limit) {
      shards.push([])
      filled = 0
    }
    shards.at(-1)!.push(name)
    filled += size
  }
  return shards
}

function sizeOf(weights: WeightFile, name: string): number {
  return weights.shape(name).reduce((a, b) => a * b, 1)
}

function five(number: number): string {
  return String(number).padStart(5, '0')
}

/** config.json of a model that came as a GGUF file. */
function configFields(config: ModelConfig): Record<string, unknown> {
  if (config.ropeScaling?.['rope_type'] === 'divisors')
    throw new ModelError(
      "The base's GGUF file scales its rope by a table, which config.json has no words for. Write a GGUF file, or take the base's folder.",
    )
  const llama = config.architecture === 'llama'
  return {
    architectures: [llama ? 'LlamaForCausalLM' : 'Qwen2ForCausalLM'],
    model_type: config.architecture,
    vocab_size: config.vocab,
    hidden_size: config.hidden,
    intermediate_size: config.inner,
    num_hidden_layers: config.layers,
    num_attention_heads: config.heads,
    num_key_value_heads: config.kvHeads,
    ...(llama ? { head_dim: config.headDim, attention_bias: config.qkvBias, mlp_bias: false } : {}),
    hidden_act: 'silu',
    rms_norm_eps: config.normEps,
    rope_theta: config.ropeTheta,
    rope_scaling: config.ropeScaling,
    max_position_embeddings: config.contextLength,
    tie_word_embeddings: config.tiedHead,
    bos_token_id: config.bosTokenId,
    eos_token_id: config.eosTokenIds.length === 1 ? config.eosTokenIds[0] : config.eosTokenIds,
  }
}
