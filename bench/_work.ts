// The products of a GRPO step, counted by hand, and how fast this machine does a large one.

import type { ModelSource } from '../src/engine/engine'
import { linearShapes } from '../src/engine/linears'
import type { ModelConfig } from '../src/engine/model-config'
import { openModel } from '../src/engine/open-model'
import { openBackend } from '../src/engine/ops/open-backend'
import type { Precision } from '../src/engine/ops/ops'
import type { Shape } from './_engine'

/** Of the adapter on all linear layers. */
export const RANK = 16

/** Multiplications and additions of a step's products: head and adapter included, attention apart, common prefixes once. */
export function productWork({ groups, rollouts, prompt, common, fresh }: Shape, config: ModelConfig) {
  const shapes = Object.values(linearShapes(config))
  const sum = (of: (shape: (typeof shapes)[number]) => number) => shapes.reduce((total, shape) => total + of(shape), 0)
  const frozen = config.layers * sum(({ in: inputs, out }) => inputs * out)
  const adapter = config.layers * RANK * sum(({ in: inputs, out, members }) => members.length * inputs + out)
  const head = config.vocab * config.hidden
  const rows = common + groups * (prompt - common) + groups * rollouts * (fresh - 1)
  const pairs = groups * rollouts * fresh
  return {
    rollouts: 2 * rows * (frozen + adapter) + 2 * pairs * head,
    trainStep: rows * (4 * frozen + 6 * adapter) + 6 * pairs * head,
  }
}

export async function configOf(model: ModelSource): Promise<ModelConfig> {
  const { config, weights } = await openModel(model)
  weights.close()
  return config
}

/** Multiplications and additions a second of the best of six large products. */
export async function peakSpeed(precision: Precision): Promise<number> {
  const backend = await openBackend('cpu', { precision })
  const [rows, size] = [2048, 1536]
  const arena = backend.arena(4 * 2 * rows * size)
  const weight = backend.prepareWeight([size, size], new Float32Array(size * size).fill(0.5))
  const [x, y] = [arena.tensor([rows, size]), arena.tensor([rows, size])]
  backend.ops.fill(x, 0.25)
  let best = 0
  for (let i = 0; i < 6; i++) {
    const started = performance.now()
    backend.ops.linear({ y, x, weight })
    await backend.download(y.rows(0, 1))
    best = Math.max(best, (2 * rows * size * size) / ((performance.now() - started) / 1000))
  }
  arena.close()
  backend.close()
  return best
}
