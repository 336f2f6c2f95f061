// An engine on a library that computes nothing, so that all that is left of a step is the host's: our JavaScript, the calls into the library and
// what they carry.

import { readFileSync } from 'node:fs'
import { setImmediate as turn } from 'node:timers/promises'
import { getHeapStatistics } from 'node:v8'
import koffi from 'koffi'
import { type InferenceLimits, planInference } from '../src/engine/inference-plan'
import { LoraWeights } from '../src/engine/lora'
import { Model } from '../src/engine/model'
import { ModelRunner } from '../src/engine/model-runner'
import { openNative } from '../src/engine/ops/native'
import { STUB_COUNTERS, stubLibrary } from '../src/engine/ops/stub-library.fixture'
import type { PolicyWeights } from '../src/engine/policy-weights'
import { uniforms } from '../src/engine/random'
import { Scheduler } from '../src/engine/scheduler'
import { Trainer } from '../src/engine/trainer'
import { drawPrompts, LORA, SAMPLING, UPDATE } from './_gpu-engine'
import { H200_FREE_BYTES, type Workload } from './_gpu-work'
import { narrow, packsOnH200 } from './_narrow-model'
import { randomModel } from './_random-model'

const POLICY = 'bench'

/** What one step took and asked for. */
export interface HostStep {
  readonly milliseconds: number
  /** CPU time of our own thread, collections of garbage included, a mean over the steps of a round: the system counts in ticks. */
  readonly cpuMilliseconds: number
  readonly calls: number
  readonly uploadedBytes: number
  /** Growth of the heap and of buffers outside it; none where garbage was collected meanwhile. */
  readonly garbageBytes: number | null
}

export interface HostEngine {
  /** Every decode step of the workload's rollouts, `rows` of them at once. */
  decode(rows: number): Promise<HostStep[]>
  /** The same where completions end at any length, so that hardly a step has as many rows as another. */
  unevenDecode(rows: number): Promise<HostStep[]>
  train(): Promise<HostStep>
  close(): void
}

export function openHostEngine({ config: real, step }: Workload): HostEngine {
  const path = stubLibrary(null, { arbor_memory: H200_FREE_BYTES })
  const backend = openNative({ path, description: 'nothing' }, { device: 'cuda', precision: 'bf16' })
  const counters = STUB_COUNTERS.map((prototype) => koffi.load(path).func(prototype) as () => number)
  const config = narrow(real)
  const model = Model.load(backend, randomModel(config))
  const weights: PolicyWeights = LoraWeights.fresh(backend, config, { spec: LORA, seed: 0 })
  const { activationBytes, packTokens } = packsOnH200(real)
  const trainer = new Trainer(backend, model, activationBytes)
  const random = uniforms(7, 0)
  const runners: ModelRunner[] = []
  const inference = new Map<number, Scheduler>()
  const schedulerOf = (rows: number): Scheduler => {
    const known = inference.get(rows)
    if (known) return known
    const limits: InferenceLimits = {
      ...planInference(real, { ...backend, memory: () => backend.memory(), batchSequences: rows }),
    }
    runners.push(new ModelRunner(backend, model, { limits, policies: () => weights }))
    inference.set(rows, new Scheduler(runners.at(-1)!, limits))
    return inference.get(rows)!
  }
  const decode = async (rows: number, length: () => number): Promise<HostStep[]> => {
    const scheduler = schedulerOf(rows)
    const prompts = drawPrompts({ ...step, groups: rows / step.rollouts }, config.vocab, random)
    for (const [i, prompt] of prompts.entries())
      for (let j = 0; j < step.rollouts; j++) {
        const request = { policy: POLICY, prompt, seeds: [step.rollouts * i + j], maxNewTokens: length(), sampling: SAMPLING }
        void scheduler.add({ ...request, stopTokenIds: [0x7fffffff] }, { policyVersion: weights.policyVersion })
      }
    const steps: Omit<HostStep, 'cpuMilliseconds'>[] = []
    let cpu = 0
    while (scheduler.busy) {
      const decoded = scheduler.counters.decodeTokens
      const one = await measured(counters, async () => {
        await scheduler.step()
        await turn()
      })
      if (scheduler.counters.decodeTokens > decoded && steps.push(one) === 1) cpu = threadMilliseconds()
    }
    const cpuMilliseconds = (threadMilliseconds() - cpu) / (steps.length - 1)
    scheduler.cache.forget(POLICY)
    return steps.map((one) => ({ ...one, cpuMilliseconds }))
  }
  return {
    decode: (rows) => decode(rows, () => step.fresh),
    unevenDecode: (rows) => decode(rows, () => 1 + Math.floor(random() * step.fresh)),
    async train() {
      const draw = (count: number) => Array.from({ length: count }, () => Math.floor(random() * config.vocab))
      const prompts = drawPrompts(step, config.vocab, random)
      const sequences = prompts.flatMap((prompt) =>
        Array.from({ length: step.rollouts }, () => ({ prompt, completion: draw(step.fresh) })),
      )
      const dLogprobs = new Float32Array(sequences.length * step.fresh).fill(1e-3)
      const cpu = threadMilliseconds()
      const one = await measured(counters, async () => {
        await trainer.trainStep(weights, sequences, { dLogprobs }, { ...UPDATE, packTokens })
      })
      return { ...one, cpuMilliseconds: threadMilliseconds() - cpu }
    },
    close() {
      for (const runner of runners) runner.close()
      trainer.close()
      weights.close()
      model.close()
      backend.close()
    },
  }
}

async function measured(counters: readonly (() => number)[], work: () => Promise<void>) {
  const heap = () => {
    const { used_heap_size, external_memory } = getHeapStatistics()
    return used_heap_size + external_memory
  }
  const before = counters.map((count) => count()) as [number, number]
  const held = heap()
  const started = performance.now()
  await work()
  const milliseconds = performance.now() - started
  const garbage = heap() - held
  const [calls, uploadedBytes] = counters.map((count, i) => count() - before[i]!) as [number, number]
  return { milliseconds, calls, uploadedBytes, garbageBytes: garbage > 0 ? garbage : null }
}

/** CPU time of the thread that asks; NaN where /proc does not say. */
function threadMilliseconds(): number {
  try {
    return Number(readFileSync('/proc/thread-self/schedstat', 'utf8').split(' ')[0]) / 1e6
  } catch {
    return Number.NaN
  }
}
