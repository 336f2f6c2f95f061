// What a decoder of the Llama family is, as data. A new family is a new line in `ARCHITECTURES`.

import { ModelError } from '../errors'

export interface ModelConfig {
  readonly architecture: 'llama' | 'qwen2'
  readonly vocab: number
  readonly hidden: number
  readonly layers: number
  readonly heads: number
  readonly kvHeads: number
  readonly headDim: number
  readonly inner: number
  readonly contextLength: number
  readonly normEps: number
  readonly ropeTheta: number
  readonly ropeScaling: Readonly<Record<string, unknown>> | null // Hugging Face's field, null = none
  readonly qkvBias: boolean
  readonly tiedHead: boolean
  readonly bosTokenId: number | null
  readonly eosTokenIds: readonly number[]
}

const ARCHITECTURES: Readonly<Record<string, Pick<ModelConfig, 'architecture' | 'qkvBias'>>> = {
  llama: { architecture: 'llama', qkvBias: false },
  qwen2: { architecture: 'qwen2', qkvBias: true },
}

/** From a parsed Hugging Face config.json; `where` names the file in errors. */
export function modelConfig(json: Readonly<Record<string, unknown>>, where: string): ModelConfig {
  const kind = ARCHITECTURES[String(json['model_type'])]
  if (!kind)
    throw new ModelError(
      `${where}: model_type "${json['model_type']}" is not supported. Supported: ${Object.keys(ARCHITECTURES).join(', ')} (Llama, SmolLM2, Qwen2, Qwen2.5).`,
    )
  const number = (key: string, fallback?: number): number => {
    const value = json[key] ?? fallback
    if (typeof value !== 'number' || !Number.isFinite(value))
      throw new ModelError(`${where}: "${key}" is ${JSON.stringify(value)}, a number is needed.`)
    return value
  }
  const heads = number('num_attention_heads')
  const hidden = number('hidden_size')
  // transformers 5 keeps the rope's values in rope_parameters, earlier ones in rope_theta and rope_scaling.
  const rope = (json['rope_parameters'] ?? null) as Record<string, unknown> | null
  const scaling = (json['rope_scaling'] ?? (rope && rope['rope_type'] !== 'default' ? rope : null)) as Record<
    string,
    unknown
  > | null
  const eos = json['eos_token_id']
  return {
    ...kind,
    qkvBias: kind.qkvBias || json['attention_bias'] === true,
    vocab: number('vocab_size'),
    hidden,
    layers: number('num_hidden_layers'),
    heads,
    kvHeads: number('num_key_value_heads', heads),
    headDim: number('head_dim', hidden / heads),
    inner: number('intermediate_size'),
    contextLength: number('max_position_embeddings'),
    normEps: number('rms_norm_eps', 1e-6),
    ropeTheta: number('rope_theta', (rope?.['rope_theta'] as number | undefined) ?? 10000),
    ropeScaling: scaling,
    tiedHead: json['tie_word_embeddings'] === true,
    bosTokenId: typeof json['bos_token_id'] === 'number' ? json['bos_token_id'] : null,
    eosTokenIds: Array.isArray(eos) ? (eos as number[]) : typeof eos === 'number' ? [eos] : [],
  }
}
