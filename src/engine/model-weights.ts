// A model's frozen weights on the device: read by their Hugging Face names, fused, and put into the backend's own layout.

import { ModelError } from '../errors'
import { FUSED_LINEARS, type FusedLinear, type LinearShape, linearShapes } from './linears'
import type { ModelConfig } from './model-config'
import type { Arena, Backend, Tensor } from './ops/ops'
import { ropeTable } from './rope'
import type { OpenModel, WeightFile } from './weights'

export interface LinearWeights {
  readonly weight: Tensor // [out, in], prepared
  readonly bias?: Tensor // [out]
}

export type LayerWeights = Readonly<Record<FusedLinear, LinearWeights>> & {
  readonly attnNorm: Tensor // [hidden]
  readonly mlpNorm: Tensor // [hidden]
}

export interface ModelWeights {
  readonly embedding: Tensor // [vocab, hidden], prepared
  readonly head: Tensor // [vocab, hidden], prepared; the embedding itself when tied
  readonly layers: readonly LayerWeights[]
  readonly finalNorm: Tensor // [hidden]
  readonly rope: Tensor // [contextLength, headDim]
  readonly parameters: number
  /** Holds the vectors and the rope table; matrices live with the backend. */
  readonly arena: Arena
}

/** Reads all weights. Throws ModelError naming a weight that is missing or of another shape than the config says. */
export function loadModelWeights(backend: Backend, { config, weights }: OpenModel): ModelWeights {
  const reader = new Reader(backend, config, weights)
  const shapes = linearShapes(config)
  const embedding = reader.matrix([['model.embed_tokens.weight', config.vocab]], config.hidden)
  const tied = config.tiedHead || !weights.has('lm_head.weight')
  const head = tied ? embedding : reader.matrix([['lm_head.weight', config.vocab]], config.hidden)
  const layers = Array.from({ length: config.layers }, (_, l): LayerWeights => {
    const prefix = `model.layers.${l}.`
    const linears = FUSED_LINEARS.map((name) => [name, reader.linear(prefix, shapes[name])] as const)
    return {
      ...(Object.fromEntries(linears) as Record<FusedLinear, LinearWeights>),
      attnNorm: reader.vector([[`${prefix}input_layernorm.weight`, config.hidden]]),
      mlpNorm: reader.vector([[`${prefix}post_attention_layernorm.weight`, config.hidden]]),
    }
  })
  const finalNorm = reader.vector([['model.norm.weight', config.hidden]])
  const rope = reader.arena.tensor([config.contextLength, config.headDim])
  backend.upload(rope, ropeTable(config))
  return { embedding, head, layers, finalNorm, rope, parameters: reader.parameters, arena: reader.arena }
}

/** A name in the file and the rows (or values) it must have. */
type Piece = readonly [name: string, rows: number]

class Reader {
  readonly arena: Arena
  parameters = 0

  constructor(
    private readonly backend: Backend,
    config: ModelConfig,
    private readonly file: WeightFile,
  ) {
    const perLayer = 8 * config.hidden + 2 * config.inner + 4 * config.heads * config.headDim
    this.arena = backend.arena(4 * (config.contextLength * config.headDim + (config.layers + 1) * perLayer) + 4096)
  }

  /** Pieces of `columns` columns stacked into one prepared matrix. */
  matrix(pieces: readonly Piece[], columns: number): Tensor {
    const rows = pieces.reduce((sum, [, count]) => sum + count, 0)
    return this.backend.prepareWeight([rows, columns], this.read(pieces, [columns]))
  }

  /** Pieces joined into one vector. */
  vector(pieces: readonly Piece[]): Tensor {
    const data = this.read(pieces, [])
    const tensor = this.arena.tensor([data.length])
    this.backend.upload(tensor, data)
    return tensor
  }

  linear(prefix: string, shape: LinearShape): LinearWeights {
    const pieces = (suffix: string): Piece[] => shape.members.map(({ path, out }) => [`${prefix}${path}.${suffix}`, out])
    const weight = this.matrix(pieces('weight'), shape.in)
    const biased = this.file.has(pieces('bias')[0]![0])
    return biased ? { weight, bias: this.vector(pieces('bias')) } : { weight }
  }

  private read(pieces: readonly Piece[], inner: readonly number[]): Float32Array {
    const width = inner[0] ?? 1
    const data = new Float32Array(pieces.reduce((sum, [, count]) => sum + count * width, 0))
    let offset = 0
    for (const [name, count] of pieces) {
      if (!this.file.has(name))
        throw new ModelError(`The model has no weight "${name}". Is this a Llama or Qwen2 model, and whole?`)
      const shape = this.file.shape(name)
      if (String(shape) !== String([count, ...inner]))
        throw new ModelError(`Weight "${name}" has shape [${shape}]; the model's config asks for [${[count, ...inner]}].`)
      data.set(this.file.read(name), offset)
      offset += count * width
    }
    this.parameters += data.length
    return data
  }
}
