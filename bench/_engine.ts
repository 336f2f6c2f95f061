// The work of one GRPO step on SmolLM2-135M's shape, done by our engine: 8 prompts that share a prefix, 4 rollouts each.

import type { ModelSource, TrainSequence } from '../src/engine/engine'
import { LocalEngine } from '../src/engine/local-engine'
import { resolveModel } from '../src/engine/model-source'
import type { Precision } from '../src/engine/ops/ops'
import type { PrecisionWish } from '../src/engine/precision'
import { configOf, productWork, RANK } from './_work'

export interface Shape {
  readonly groups: number
  readonly rollouts: number
  readonly prompt: number
  /** Prompt tokens common to all groups. */
  readonly common: number
  readonly fresh: number
}

/** The step of the benchmark's program: two demonstrations in the prompt, or the tutorial's bare ChatAdapter prompt for a tiny model. */
export function stepShape({ tiny }: { tiny: boolean }): Shape {
  return tiny
    ? { groups: 8, rollouts: 4, prompt: 192, common: 129, fresh: 42 }
    : { groups: 8, rollouts: 4, prompt: 292, common: 249, fresh: 64 }
}

export function shapeText({ groups, rollouts, prompt, common, fresh }: Shape): string {
  return `${groups} x ${rollouts}, prompt ${prompt} (${common} common), ${fresh} new tokens`
}

export interface EngineUnderTest {
  readonly description: string
  rollouts(): Promise<number>
  trainStep(): Promise<number>
  readonly tokens: { computed: number; unshared: number }
  /** Multiplications and additions of matrix products in one round of each. */
  readonly work: Readonly<Record<'rollouts' | 'trainStep', number>>
  readonly precision: Precision
  close(): Promise<void>
}

export async function openEngine(
  modelName: string,
  shape: Shape,
  options: { device: 'cpu' | 'tfjs' | 'cuda' | 'auto'; precision: PrecisionWish },
): Promise<EngineUnderTest> {
  const model: ModelSource = await resolveModel(modelName, { log: (line) => process.stderr.write(`${line}\n`) })
  const engine = new LocalEngine(options)
  const info = await engine.load(model)
  await engine.openPolicy('bench', {
    lora: {
      rank: RANK,
      alpha: 32,
      targets: ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj'],
      dropout: 0,
    },
    seed: 0,
  })
  const random = generator(7)
  const draw = (count: number) => Array.from({ length: count }, () => 10 + Math.floor(random() * (info.vocab - 100)))
  const common = draw(shape.common)
  const prompts = Array.from({ length: shape.groups }, () => [...common, ...draw(shape.prompt - shape.common)])
  const sampling = { temperature: 1, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1 }
  const tokens = { computed: 0, unshared: 0 }
  let seed = 0
  let completions: (readonly number[])[][] = []
  return {
    description: `${info.name}, ${info.deviceDescription}, ${info.dtype}`,
    precision: info.dtype === 'bf16' ? 'bf16' : 'f32',
    work: productWork(shape, await configOf(model)),
    tokens,
    async rollouts() {
      const started = performance.now()
      // As the program layer does it: every rollout is a request of its own.
      const requests = prompts.flatMap((prompt) =>
        Array.from({ length: shape.rollouts }, () =>
          engine.generate({ policy: 'bench', prompt, seeds: [++seed], maxNewTokens: shape.fresh, sampling, stopTokenIds: [] }),
        ),
      )
      const answers = (await Promise.all(requests)).map(([completion]) => completion!.tokens)
      completions = prompts.map((_, i) => answers.slice(i * shape.rollouts, (i + 1) * shape.rollouts))
      return (performance.now() - started) / 1000
    },
    async trainStep() {
      const sequences: TrainSequence[] = prompts.flatMap((prompt, i) =>
        Array.from({ length: shape.rollouts }, (_, j) => ({ prompt, completion: completions[i]?.[j] ?? draw(shape.fresh) })),
      )
      const started = performance.now()
      const stats = await engine.trainStep(
        'bench',
        sequences,
        { dLogprobs: randomGradient(sequences, random) }, // as the server, whose on-policy gradient is known before the pass
        { temperature: 1, learningRate: 1e-5, beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0, maxGradNorm: 1 },
      )
      tokens.computed = stats.tokens
      tokens.unshared = stats.tokensUnshared
      return (performance.now() - started) / 1000
    },
    close: () => engine.close(),
  }
}

function randomGradient(sequences: readonly TrainSequence[], random: () => number): Float32Array {
  const length = sequences.reduce((sum, { completion }) => sum + completion.length, 0)
  return Float32Array.from({ length }, () => (random() - 0.5) / length)
}

function generator(seed: number): () => number {
  return () => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0
    return seed / 2 ** 32
  }
}
