// How long a GPU waits for us in a step's rollouts and in its update, by a library that is only a clock.

import { LocalEngine } from '../src/engine/local-engine'
import { openNative } from '../src/engine/ops/native'
import type { Backend } from '../src/engine/ops/ops'
import { planPackTokens } from '../src/engine/pack-plan'
import { uniforms } from '../src/engine/random'
import { clockLibrary, type DeviceTimes } from './_clock-library'
import { drawPrompts, LORA, SAMPLING, sequencesOf, UPDATE } from './_gpu-engine'
import type { Workload } from './_gpu-work'
import { narrow, packsOnH200 } from './_narrow-model'
import { randomModel } from './_random-model'
import { median } from './_report'

/** Medians of so many steps, behind those in which V8 compiles. */
export interface Waits extends DeviceTimes {
  readonly name: string
  /** What the step takes and the device doesn't, on average. */
  readonly mean: number
}

const POLICY = 'bench'

export async function deviceWaits(workload: Workload, options: { warmUp: number; rounds: number }): Promise<Waits[]> {
  const clock = clockLibrary()
  const backend = openNative({ path: clock.path, description: 'a clock' }, { device: 'cuda', precision: 'bf16' })
  const engine = await smallEngine(workload, backend)
  const update = { ...UPDATE, ...packsOf(workload) }
  const { step } = workload
  const random = uniforms(7, 0)
  const times = { rollouts: [] as DeviceTimes[], update: [] as DeviceTimes[] }
  const timed = async <Result>(of: DeviceTimes[], round: number, work: () => Promise<Result>): Promise<Result> => {
    clock.start()
    const result = await work()
    if (round >= 0) of.push(clock.read())
    return result
  }
  for (let round = -options.warmUp; round < options.rounds; round++) {
    const requests = drawPrompts(step, narrow(workload.config).vocab, random).map((prompt) => {
      const seeds = Array.from({ length: step.rollouts }, () => Math.floor(2 ** 30 * random()))
      return { policy: POLICY, prompt, seeds, maxNewTokens: step.fresh, sampling: SAMPLING, stopTokenIds: [] }
    })
    const answers = await timed(times.rollouts, round, () => Promise.all(requests.map((one) => engine.generate(one))))
    const sequences = sequencesOf(answers.map((completions, i) => ({ ...requests[i]!, completions })))
    const dLogprobs = Float32Array.from({ length: sequences.length * step.fresh }, () => 1e-4 * (random() - 0.5))
    await timed(times.update, round, () => engine.trainStep(POLICY, sequences, { dLogprobs }, update))
  }
  await engine.close()
  return Object.entries(times).map(([name, all]) => summary(name, all))
}

/** Smaller packs than the engine would make by itself of its small model, where the real one's are. */
function packsOf({ config }: Workload): { readonly packTokens?: number } {
  const { packTokens } = packsOnH200(config)
  const most = planPackTokens(config, Number.POSITIVE_INFINITY, { device: 'cuda', valueBytes: 2 })
  return packTokens < most ? { packTokens } : {}
}

async function smallEngine({ name, config }: Workload, backend: Backend): Promise<LocalEngine> {
  const model = randomModel(narrow(config))
  const engine = new LocalEngine({ backend, open: async () => model })
  await engine.load({ name, kind: 'folder', path: '' })
  await engine.openPolicy(POLICY, { lora: LORA, seed: 0 })
  return engine
}

function summary(name: string, all: readonly DeviceTimes[]): Waits {
  const of = (pick: (one: DeviceTimes) => number) => median(all.map(pick))
  const waited = all.reduce((sum, { before, between, after }) => sum + before + between + after, 0)
  const medians = { busy: of((one) => one.busy), before: of((one) => one.before), between: of((one) => one.between) }
  return { name, ...medians, after: of((one) => one.after), mean: waited / all.length }
}
