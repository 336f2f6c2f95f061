// The models that can be pretrained, as data: Llamas with grouped heads, a tied head and no biases.

import { nearestName, OptionError } from '../errors'
import { END_OF_TURN_ID, PAD_TOKEN_ID } from './tokenizer-files'

export interface ModelSize {
  readonly hidden: number
  readonly layers: number
  readonly heads: number
  readonly headDim: number
  readonly kvHeads: number
  readonly inner: number
  readonly vocab: number
  readonly contextLength: number
  /** Updates after which the facts are learned; a wish of the person goes before it. */
  readonly steps: number
}

const common = { headDim: 32, vocab: 2048, contextLength: 1024 } as const

export const MODEL_SIZES = {
  '0.6M': { ...common, hidden: 96, layers: 4, heads: 3, kvHeads: 1, inner: 288, steps: 1200 },
  '1.5M': { ...common, hidden: 128, layers: 6, heads: 4, kvHeads: 2, inner: 416, steps: 1200 },
  '3M': { ...common, hidden: 192, layers: 6, heads: 6, kvHeads: 2, inner: 544, steps: 2000 },
  '5M': { ...common, hidden: 256, layers: 6, heads: 4, headDim: 64, kvHeads: 2, inner: 704, steps: 2000 },
  /** Learns nothing worth knowing, in seconds: for trying the command and for tests. */
  mini: { ...common, hidden: 32, layers: 2, heads: 2, headDim: 16, kvHeads: 1, inner: 64, vocab: 512, steps: 20 },
} as const satisfies Record<string, ModelSize>

export type SizeName = keyof typeof MODEL_SIZES
export const SIZE_NAMES = Object.keys(MODEL_SIZES) as SizeName[]

/** A size as a person writes it, '3m' too. @throws OptionError naming the sizes there are */
export function sizeName(name: string): SizeName {
  const found = SIZE_NAMES.find((one) => one.toLowerCase() === name.toLowerCase())
  if (found) return found
  const near = nearestName(name, SIZE_NAMES)
  throw new OptionError(
    `There is no size "${name}": choose one of ${SIZE_NAMES.join(', ')}.${near === null ? '' : ` Did you mean ${near}?`}`,
  )
}

export function modelSize(name: string): ModelSize {
  return MODEL_SIZES[sizeName(name)]
}

/** Hugging Face's config.json; `dtype` is that of the weights beside it. */
export function configJson(size: ModelSize, dtype: 'float32' | 'bfloat16'): Record<string, unknown> {
  return {
    architectures: ['LlamaForCausalLM'],
    model_type: 'llama',
    vocab_size: size.vocab,
    hidden_size: size.hidden,
    intermediate_size: size.inner,
    num_hidden_layers: size.layers,
    num_attention_heads: size.heads,
    num_key_value_heads: size.kvHeads,
    head_dim: size.headDim,
    hidden_act: 'silu',
    rms_norm_eps: 1e-5,
    rope_theta: 10000,
    max_position_embeddings: size.contextLength,
    tie_word_embeddings: true,
    attention_bias: false,
    mlp_bias: false,
    bos_token_id: PAD_TOKEN_ID,
    eos_token_id: END_OF_TURN_ID,
    pad_token_id: PAD_TOKEN_ID,
    dtype,
  }
}
