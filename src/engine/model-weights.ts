// A model's weights by their Hugging Face names, fused as the ops read them; and the frozen base, in the backend's own layout.

import { ModelError } from '../errors'
import { FUSED_LINEARS, type FusedLinear, type LinearShape, linearShapes } from './linears'
import type { ModelConfig } from './model-config'
import type { Arena, Backend, Tensor } from './ops/ops'
import { ropeTable } from './rope'
import type { OpenModel, WeightFile } from './weights'

export interface LinearParts<T> {
  readonly weight: T // [out, in]
  readonly bias?: T // [out]
}

export type LayerParts<T> = Readonly<Record<FusedLinear, LinearParts<T>>> & {
  readonly attnNorm: T // [hidden]
  readonly mlpNorm: T // [hidden]
}

/** One thing for every weight of a model: its values, or their gradients. */
export interface ModelParts<T> {
  readonly embedding: T // [vocab, hidden]
  readonly head: T // [vocab, hidden]; the embedding's own when tied
  readonly layers: readonly LayerParts<T>[]
  readonly finalNorm: T // [hidden]
}

export interface ModelWeights extends ModelParts<Tensor> {
  readonly rope: Tensor // [contextLength, headDim]
  readonly parameters: number
  /** Holds the vectors and the rope table; matrices live with the backend. */
  readonly arena: Arena
}

/** Weights of a checkpoint that are stacked into one tensor. */
export interface Stack {
  /** Hugging Face names, each with its rows (of a vector: its values). */
  readonly pieces: readonly (readonly [name: string, rows: number])[]
  /** Null for a vector. */
  readonly columns: number | null
  /** Of a linear, which adapters come to. */
  readonly adapted?: boolean
}

/** Reads all weights of the base; matrices are prepared. Throws ModelError naming one that is missing or of another shape than the config says. */
export function loadModelWeights(backend: Backend, { config, weights }: OpenModel): ModelWeights {
  const perLayer = 8 * config.hidden + 2 * config.inner + 4 * config.heads * config.headDim
  const arena = backend.arena(4 * (config.contextLength * config.headDim + (config.layers + 1) * perLayer) + 4096)
  let parameters = 0
  const parts = modelParts(config, weights, (stack) => {
    const data = readStack(weights, stack)
    parameters += data.length
    const { columns, adapted = false } = stack
    if (columns !== null) return backend.prepareWeight([data.length / columns, columns], data, { adapted })
    const tensor = arena.tensor([data.length])
    backend.upload(tensor, data)
    return tensor
  })
  const rope = arena.tensor([config.contextLength, config.headDim])
  backend.upload(rope, ropeTable(config))
  return { ...parts, rope, parameters, arena }
}

/** Calls `make` once for every fused tensor of the model, always in the same order. Which biases and whether a head there are, the file decides. */
export function modelParts<T>(config: ModelConfig, file: Pick<WeightFile, 'has'>, make: (stack: Stack) => T): ModelParts<T> {
  const { hidden, vocab } = config
  const shapes = linearShapes(config)
  const vector = (name: string) => make({ pieces: [[name, hidden]], columns: null })
  const linear = (prefix: string, shape: LinearShape): LinearParts<T> => {
    const pieces = (kind: string) => shape.members.map(({ path, out }) => [`${prefix}${path}.${kind}`, out] as const)
    const weight = make({ pieces: pieces('weight'), columns: shape.in, adapted: true })
    return file.has(pieces('bias')[0]![0]) ? { weight, bias: make({ pieces: pieces('bias'), columns: null }) } : { weight }
  }
  const embedding = make({ pieces: [['model.embed_tokens.weight', vocab]], columns: hidden })
  const tied = config.tiedHead || !file.has('lm_head.weight')
  const head = tied ? embedding : make({ pieces: [['lm_head.weight', vocab]], columns: hidden })
  const layers = Array.from({ length: config.layers }, (_, l): LayerParts<T> => {
    const prefix = `model.layers.${l}.`
    const linears = FUSED_LINEARS.map((name) => [name, linear(prefix, shapes[name])] as const)
    return {
      ...(Object.fromEntries(linears) as Record<FusedLinear, LinearParts<T>>),
      attnNorm: vector(`${prefix}input_layernorm.weight`),
      mlpNorm: vector(`${prefix}post_attention_layernorm.weight`),
    }
  })
  return { embedding, head, layers, finalNorm: vector('model.norm.weight') }
}

/** The pieces one after the other. `suffix` follows each name in the file (an optimizer's state lies under '….m' and '….v'). */
export function readStack(file: WeightFile, { pieces, columns }: Stack, suffix = ''): Float32Array {
  const width = columns ?? 1
  const read = ([piece, rows]: readonly [string, number]): Float32Array => {
    const name = piece + suffix
    if (!file.has(name)) throw new ModelError(`The model has no weight "${name}". Is this a Llama or Qwen2 model, and whole?`)
    const expected = columns === null ? [rows] : [rows, columns]
    if (String(file.shape(name)) !== String(expected))
      throw new ModelError(`Weight "${name}" has shape [${file.shape(name)}]; the model's config asks for [${expected}].`)
    return file.read(name)
  }
  if (pieces.length === 1) return read(pieces[0]!) // an embedding is too large to be copied for nothing
  const data = new Float32Array(pieces.reduce((sum, [, rows]) => sum + rows * width, 0))
  let offset = 0
  for (const piece of pieces) {
    data.set(read(piece), offset)
    offset += piece[1] * width
  }
  return data
}
