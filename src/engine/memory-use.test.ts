import { describe, expect, it } from 'vitest'
import { goldenFolder } from '../../test/golden/engine/open-golden'
import { OutOfMemoryError } from '../errors'
import { LORA_TARGETS, type ModelSource } from './engine'
import { LocalEngine } from './local-engine'
import { memoryParts } from './memory-use'
import { BumpArena } from './ops/arena'
import type { Backend } from './ops/ops'
import { openTfjs } from './ops/tfjs'
import { HostTensor } from './ops/tfjs-memory'
import { fromErrorData, toErrorData } from './worker-protocol'

const LLAMA: ModelSource = { name: 'llama', kind: 'folder', path: goldenFolder('llama') }
const LORA = { rank: 4, alpha: 8, targets: LORA_TARGETS, dropout: 0 }
const SAMPLING = { temperature: 1, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1 }
const ASKED = { policy: 'job', prompt: [1, 2, 3], seeds: [1, 2], maxNewTokens: 5, sampling: SAMPLING, stopTokenIds: [] }
const UPDATE = { temperature: 1, learningRate: 1e-2, beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0, maxGradNorm: 1 }
const SEQUENCES = [{ prompt: [5, 6, 7], completion: [8, 9] }]

/** A backend with so many bytes to give; `left` may be changed at any time. */
async function scarce(bytes: number): Promise<{ backend: Backend; room: { left: number } }> {
  const inner = await openTfjs()
  const room = { left: bytes }
  const allocate = (size: number) => {
    if (size > room.left) throw new OutOfMemoryError(`no device memory for ${size} bytes; ${room.left} are free`, { op: 'alloc' })
    room.left -= size
    return new ArrayBuffer(size)
  }
  const free = (block: ArrayBuffer) => void (room.left += block.byteLength)
  const arena = (size: number) => new BumpArena<ArrayBuffer>({ allocate, view: HostTensor.view, free }, size)
  const backend = Object.create(inner, { arena: { value: arena } }) as Backend
  return { backend, room }
}

const failure = (task: Promise<unknown>) =>
  task.then(
    () => expect.fail('there was memory'),
    (error: OutOfMemoryError) => error,
  )

describe('an engine that runs out of memory', () => {
  it('says at loading what the model takes, and frees what it had', async () => {
    const { backend, room } = await scarce(1000)
    const engine = new LocalEngine({ backend })
    const error = await failure(engine.load(LLAMA))
    expect(error).toBeInstanceOf(OutOfMemoryError)
    expect(error.code).toBe('out_of_memory')
    expect(error.message).toMatch(
      /^no device memory for \d+ bytes; 1000 are free\.\nWhat this engine takes of it at most:\n {2}the model's weights in f32/,
    )
    expect(error.plan?.map(({ what }) => what)).toEqual(["the model's weights in f32"])
    await engine.close()
    expect(room.left).toBe(1000)
  })

  it('in an update lists every part with what lowers it, leaves the policy as it was, and trains when there is room again', async () => {
    const trained = async (run: (engine: LocalEngine, room: { left: number }) => Promise<void>) => {
      const { backend, room } = await scarce(2 ** 30)
      const engine = new LocalEngine({ backend })
      await engine.load(LLAMA)
      await engine.openPolicy('job', { lora: LORA, seed: 3 })
      await run(engine, room)
      await engine.trainStep('job', SEQUENCES, { dLogprobs: Float32Array.of(-1, -1) }, UPDATE)
      const [stats] = await engine.logprobs('job', SEQUENCES, { temperature: 1 })
      await engine.close()
      return stats!.logprobs
    }
    let error: OutOfMemoryError | null = null
    const tokens = (first: number) => Array.from({ length: 60 }, (_, i) => first + i)
    const long = [0, 1, 2].map((first) => ({ prompt: tokens(first), completion: tokens(first) }))
    const afterFailing = await trained(async (engine, room) => {
      const { left } = room
      room.left = 0
      error = await failure(
        engine.trainStep('job', long, { dLogprobs: new Float32Array(180).fill(-1) }, { ...UPDATE, packTokens: 9000 }),
      )
      expect((await engine.status()).policies).toEqual([{ name: 'job', policyVersion: 0 }])
      expect(await engine.generate(ASKED)).toHaveLength(2) // rollouts have their memory already
      room.left = left
    })
    expect(error!.plan!.map(({ what, lower }) => `${what.split(',')[0]} < ${lower.split(' ')[0]}`)).toEqual([
      "the model's weights in f32 < --precision",
      'keys and values of rollouts < fewer',
      'a pass of rollouts < a',
      "a training pass's activations < --memory",
      '1 adapters with gradients and moments < r',
    ])
    expect(error!.plan!.every(({ bytes }) => bytes > 0)).toBe(true)
    expect(error!.message).toMatch(/\n {2}together +\d+\.\d\d GiB$/)
    expect(afterFailing).toEqual(await trained(async () => {}))
  })

  it('in a rollout fails those in flight with the plan, and answers the next ones', async () => {
    const { backend } = await scarce(2 ** 30)
    let failing = false
    const linear: Backend['ops']['linear'] = (args) => {
      if (failing) throw new OutOfMemoryError('arbor_linear: no device memory for scratch', { op: 'linear' })
      backend.ops.linear(args)
    }
    const engine = new LocalEngine({ backend: Object.create(backend, { ops: { value: { ...backend.ops, linear } } }) as Backend })
    await engine.load(LLAMA)
    await engine.openPolicy('job', { lora: LORA, seed: 3 })
    failing = true
    const errors = await Promise.all([failure(engine.generate(ASKED)), failure(engine.generate(ASKED))])
    expect(errors.map(({ plan }) => plan?.length)).toEqual([5, 5])
    failing = false
    expect(await engine.generate(ASKED)).toHaveLength(2)
    await engine.close()
  })
})

describe('a memory plan', () => {
  it('crosses the thread with its error', () => {
    const plan = [{ what: 'weights', bytes: 7, lower: 'a smaller model' }]
    const error = fromErrorData(structuredClone(toErrorData(new OutOfMemoryError('no memory', { op: 'alloc', plan }))))
    expect(error).toBeInstanceOf(OutOfMemoryError)
    expect(error).toMatchObject({ message: 'no memory', op: 'alloc', code: 'out_of_memory', plan })
  })

  it('counts sixteen bytes for each trained value and four for one that is only asked', () => {
    const config = { layers: 1, hidden: 8, heads: 2, kvHeads: 1, headDim: 4, inner: 16, vocab: 32, tiedHead: true } as never
    const backend = { device: 'cuda', precision: 'bf16', activations: 'bf16' } as const
    const lora = { ...LORA, rank: 2 }
    const policies = [
      { parameters: 100, frozen: false, spec: lora },
      { parameters: 100, frozen: false, spec: lora },
      { parameters: 1000, frozen: false, spec: null },
      { parameters: 10, frozen: true, spec: lora },
    ]
    const parts = memoryParts({ config, backend, policies }).map(({ what, bytes }) => [what, bytes])
    const weights = 2 * (8 * 16 + 8 * 8 + 8 * 32 + 16 * 8 + 32 * 8)
    expect(parts).toEqual([
      ["the model's weights in bf16", weights],
      ['2 adapters with gradients and moments', 3200],
      ['1 policies of all weights with gradients and moments', 16000],
      ['1 saved policies that are asked', 40],
    ])
  })
})
