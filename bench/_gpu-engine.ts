// A GRPO step's work on an engine of this process, as the server asks for it: a request for each prompt, then one update by a linear loss.

import type { Completion, TrainSequence } from '../src/engine/engine'
import { LORA_TARGETS } from '../src/engine/engine'
import { LocalEngine } from '../src/engine/local-engine'
import { type Device, openBackend } from '../src/engine/ops/open-backend'
import type { Backend } from '../src/engine/ops/ops'
import type { PrecisionWish } from '../src/engine/precision'
import { uniforms } from '../src/engine/random'
import type { Step, Workload } from './_gpu-work'
import { randomModel } from './_random-model'
import { RANK } from './_work'

export interface GpuEngine {
  readonly description: string
  readonly loadSeconds: number
  /** The step's rollouts under so many adapters at once, on prompts never seen before, of `fresh` tokens where it is given. Seconds. */
  rollouts(jobs?: number, fresh?: number): Promise<number>
  /** Further adapters, up to so many. */
  openJobs(count: number): Promise<void>
  /** One update of the first adapter by the rollouts before. Seconds. */
  train(): Promise<number>
  /** Mean and largest |rollout logprob - training logprob| of the last update. */
  readonly gap: { readonly mean: number; readonly max: number } | null
  /** Tokens computed by the last update and what they were without sharing. */
  readonly tokens: { readonly computed: number; readonly unshared: number; readonly packs: number }
  /** Share of rollouts that come out the same when they are asked for again: all together, and one prompt's alone. */
  sameAgain(): Promise<{ readonly together: number; readonly alone: number }>
  /** GiB of the device in use by everybody; null without memory of its own. */
  used(): number | null
  close(): Promise<void>
}

export interface Rolled {
  readonly prompt: readonly number[]
  readonly seeds: readonly number[]
  readonly completions: readonly Completion[]
}

export const SAMPLING = { temperature: 1, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1 }
export const UPDATE = { temperature: 1, learningRate: 1e-4, beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0, maxGradNorm: 1 }
export const LORA = { rank: RANK, alpha: 2 * RANK, targets: LORA_TARGETS, dropout: 0 }

export interface GpuEngineWishes {
  readonly device: Device
  readonly precision: PrecisionWish
  readonly packTokens?: number | undefined
  /** What the engine is given in the backend's place. */
  readonly watch?: (backend: Backend) => Backend
}

export async function openGpuEngine(
  { name, config, step }: Workload,
  { device, precision, packTokens, watch = (backend) => backend }: GpuEngineWishes,
): Promise<GpuEngine> {
  const started = performance.now()
  const backend = await openBackend(device, { precision, log: (line) => process.stderr.write(`${line}\n`) })
  const engine = new LocalEngine({ backend: watch(backend), open: async () => randomModel(config) })
  const info = await engine.load({ name, kind: 'folder', path: '' })
  await engine.openPolicy(policyName(0), { lora: LORA, seed: 0 })
  const loadSeconds = (performance.now() - started) / 1000
  const update = { ...UPDATE, ...(packTokens !== undefined && { packTokens }) }
  const random = uniforms(7, 0)
  let seed = 0
  let last: Rolled[] = []
  let gap: GpuEngine['gap'] = null
  let tokens = { computed: 0, unshared: 0, packs: 0 }
  const ask = async (
    policy: string,
    { prompt, seeds }: Pick<Rolled, 'prompt' | 'seeds'>,
    fresh = step.fresh,
  ): Promise<Rolled> => {
    const request = { policy, prompt, seeds, maxNewTokens: fresh, sampling: SAMPLING, stopTokenIds: [] }
    return { prompt, seeds, completions: await engine.generate(request) }
  }
  const askAll = (policy: string) =>
    drawPrompts(step, config.vocab, random).map((prompt) => ({
      policy,
      prompt,
      seeds: Array.from({ length: step.rollouts }, () => ++seed),
    }))
  return {
    description: `${info.deviceDescription}, ${info.dtype}`,
    loadSeconds,
    async rollouts(count = 1, fresh = step.fresh) {
      const requests = Array.from({ length: count }, (_, job) => askAll(policyName(job))).flat()
      const begun = performance.now()
      const answers = await Promise.all(requests.map((one) => ask(one.policy, one, fresh)))
      last = answers.slice(0, step.groups)
      return (performance.now() - begun) / 1000
    },
    async openJobs(count) {
      for (let job = 1; job < count; job++) await engine.openPolicy(policyName(job), { lora: LORA, seed: job })
    },
    async train() {
      const sequences = sequencesOf(last)
      const length = sequences.reduce((sum, { completion }) => sum + completion.length, 0)
      const dLogprobs = Float32Array.from({ length }, () => (random() - 0.5) / length)
      const begun = performance.now()
      const stats = await engine.trainStep(policyName(0), sequences, { dLogprobs }, update)
      const seconds = (performance.now() - begun) / 1000
      gap = gapOf(last, stats.logprobs!)
      tokens = { computed: stats.tokens, unshared: stats.tokensUnshared, packs: stats.packs }
      return seconds
    },
    get gap() {
      return gap
    },
    get tokens() {
      return tokens
    },
    async sameAgain() {
      const first = await Promise.all(askAll(policyName(0)).map((one) => ask(one.policy, one)))
      const again = await Promise.all(first.map((one) => ask(policyName(0), one)))
      const [alone] = [await ask(policyName(0), first[0]!)]
      return { together: sameShare(first, again), alone: sameShare(first.slice(0, 1), [alone]) }
    },
    used() {
      const memory = backend.memory()
      return memory && (memory.total - memory.free) / 2 ** 30
    },
    close: () => engine.close(),
  }
}

function policyName(job: number): string {
  return `job${job}`
}

/** New ones each time, so that no keys and values of theirs are cached. */
export function drawPrompts({ groups, prompt, common }: Step, vocab: number, random: () => number): number[][] {
  const draw = (count: number) => Array.from({ length: count }, () => 10 + Math.floor(random() * (vocab - 100)))
  const shared = draw(common)
  return Array.from({ length: groups }, () => [...shared, ...draw(prompt - common)])
}

export function sequencesOf(rolled: readonly Rolled[]): TrainSequence[] {
  return rolled.flatMap(({ prompt, completions }) => completions.map(({ tokens: completion }) => ({ prompt, completion })))
}

/** Of every rollout's tokens, in the order of `sequencesOf`. */
function gapOf(rolled: readonly Rolled[], trained: Float32Array): { mean: number; max: number } {
  const sampled = rolled.flatMap(({ completions }) => completions.flatMap(({ logprobs }) => [...logprobs]))
  const gaps = sampled.map((value, i) => Math.abs(value - trained[i]!))
  return { mean: gaps.reduce((sum, one) => sum + one, 0) / gaps.length, max: gaps.reduce((most, one) => Math.max(most, one), 0) }
}

function sameShare(a: readonly Rolled[], b: readonly Rolled[]): number {
  const [first, second] = [a, b].map((all) => sequencesOf(all).map(({ completion }) => completion.join()))
  return first!.filter((text, i) => text === second![i]).length / first!.length
}
