// What bench/gpu measures: the shapes of models, the work of a step, and the marks that the rows are held to.

import { type ModelConfig, modelConfig } from '../src/engine/model-config'
import { OptionError } from '../src/errors'

/** A step's sequences: `groups` prompts of `prompt` tokens, of which the first `common` are everybody's, `rollouts` each of `fresh` new tokens. */
export interface Step {
  readonly groups: number
  readonly rollouts: number
  readonly prompt: number
  readonly common: number
  readonly fresh: number
}

export type Part = 'rollouts' | 'train' | 'step' | 'gap' | 'memory' | 'jobs' | 'server'
export const PARTS: readonly Part[] = ['rollouts', 'train', 'step', 'gap', 'memory', 'jobs', 'server']

/** What a row should come to, and what is thought possible. */
export interface Mark {
  readonly mark: number
  readonly reach?: number
}

export interface Workload {
  readonly name: string
  readonly model: string
  /** Hugging Face's config.json: what our engine, the server's folder and the peer are made from. */
  readonly json: Readonly<Record<string, unknown>>
  readonly config: ModelConfig
  readonly step: Step
  /** Parts that are measured when nobody names any. */
  readonly parts: readonly Part[]
  /** In the rows' own units: milliseconds, GiB, nats, a ratio. */
  readonly marks: Partial<Record<Part, Mark>>
}

/** Free memory of an H200, as its driver answers, where there is none. */
export const H200_FREE_BYTES = 140 * 2 ** 30

/** Adapters that decode together in the row 'jobs'. */
export const JOBS = 8
const GAP: Mark = { mark: 5e-3 }

const TUTORIAL: Step = { groups: 8, rollouts: 4, prompt: 256, common: 0, fresh: 128 }
const WORKBOOK: Step = { groups: 8, rollouts: 4, prompt: 292, common: 249, fresh: 64 }
const TINY: Step = { groups: 3, rollouts: 2, prompt: 24, common: 10, fresh: 6 }

function llama(model_type: string, sizes: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const architectures = [model_type === 'qwen2' ? 'Qwen2ForCausalLM' : 'LlamaForCausalLM']
  return { architectures, model_type, hidden_act: 'silu', rms_norm_eps: 1e-6, ...sizes, dtype: 'bfloat16' }
}

const MODELS = {
  'Qwen2.5-1.5B': llama('qwen2', {
    hidden_size: 1536,
    num_hidden_layers: 28,
    num_attention_heads: 12,
    num_key_value_heads: 2,
    intermediate_size: 8960,
    vocab_size: 151936,
    tie_word_embeddings: true,
    max_position_embeddings: 32768,
    rope_theta: 1e6,
  }),
  'Qwen2.5-7B': llama('qwen2', {
    hidden_size: 3584,
    num_hidden_layers: 28,
    num_attention_heads: 28,
    num_key_value_heads: 4,
    intermediate_size: 18944,
    vocab_size: 152064,
    tie_word_embeddings: false,
    max_position_embeddings: 32768,
    rope_theta: 1e6,
  }),
  'SmolLM2-135M': llama('llama', {
    hidden_size: 576,
    num_hidden_layers: 30,
    num_attention_heads: 9,
    num_key_value_heads: 3,
    intermediate_size: 1536,
    vocab_size: 49152,
    tie_word_embeddings: true,
    max_position_embeddings: 8192,
    rope_theta: 1e5,
  }),
  tiny: llama('qwen2', {
    hidden_size: 64,
    num_hidden_layers: 2,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    intermediate_size: 128,
    vocab_size: 4096, // more than the tokenizer of the server's folder starts from
    tie_word_embeddings: true,
    max_position_embeddings: 1024,
  }),
}

const ALL: readonly Omit<Workload, 'json' | 'config'>[] = [
  {
    name: '1.5b',
    model: 'Qwen2.5-1.5B',
    step: TUTORIAL,
    parts: PARTS,
    marks: {
      rollouts: { mark: 260, reach: 190 },
      train: { mark: 95, reach: 65 },
      server: { mark: 380, reach: 270 },
      memory: { mark: 10 },
      jobs: { mark: 2 },
      gap: GAP,
    },
  },
  {
    name: '7b',
    model: 'Qwen2.5-7B',
    step: TUTORIAL,
    parts: ['rollouts', 'train', 'step', 'gap', 'memory'],
    marks: { rollouts: { mark: 650, reach: 560 }, train: { mark: 350, reach: 260 }, gap: GAP },
  },
  {
    name: '135m',
    model: 'SmolLM2-135M',
    step: WORKBOOK,
    parts: ['rollouts', 'train', 'step', 'gap', 'memory', 'server'],
    marks: { step: { mark: 90, reach: 60 }, gap: GAP },
  },
  {
    name: '135m-64x8',
    model: 'SmolLM2-135M',
    step: { ...WORKBOOK, groups: 64, rollouts: 8 },
    parts: ['rollouts', 'train', 'step', 'gap', 'memory'],
    marks: { step: { mark: 250, reach: 130 }, gap: GAP },
  },
  { name: 'tiny', model: 'tiny', step: TINY, parts: PARTS, marks: { gap: GAP } },
]

/** Those named ('1.5b,7b'; all but the tiny one: ''), with sizes of the step, and fields of the model's config.json, replaced where they are given. */
export function workloads(names: string, sizes: Partial<Step>, shape: Readonly<Record<string, number>> = {}): Workload[] {
  const asked = names === '' ? ALL.map(({ name }) => name).filter((name) => name !== 'tiny') : names.split(',')
  return asked.map((name) => {
    const found = ALL.find((one) => one.name === name)
    if (!found) throw new OptionError(`--model ${name}: choose of ${ALL.map((one) => one.name).join(', ')}.`)
    const json = { ...MODELS[found.model as keyof typeof MODELS], ...shape }
    return { ...found, json, config: modelConfig(json, found.model), step: { ...found.step, ...sizes } }
  })
}

export function stepText({ groups, rollouts, prompt, common, fresh }: Step): string {
  return `${groups} x ${rollouts}, prompt ${prompt}${common > 0 ? ` (${common} common)` : ''}, ${fresh} new`
}
