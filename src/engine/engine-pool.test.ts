import { afterEach, describe, expect, it } from 'vitest'
import { CUDA, gpuCount, openGpu, ownGpu } from '../../test/emulator/gpu'
import { describePool } from '../../test/engine/describe-pool'
import { goldenFolder } from '../../test/golden/engine/open-golden'
import { BackendError } from '../errors'
import { type Completion, type GenerateRequest, LORA_TARGETS, type StepConfig } from './engine'
import { EnginePool } from './engine-pool'
import { FakeEngine } from './fake-engine'
import { LocalEngine } from './local-engine'
import { openBackend } from './ops/open-backend'
import type { PartWork, PoolMember } from './pool-member'

describePool('cpu, f32', () => openBackend('cpu', { precision: 'f32' }))
if (gpuCount > 1)
  for (const [precision, coarser] of [
    ['f32', 1],
    ['bf16', 60],
  ] as const)
    describePool(`${CUDA}, ${precision}`, (index) => openGpu(precision, index), { counts: [2], coarser, sameBits: ownGpu })

const SOURCE = { name: 'tiny', kind: 'folder', path: goldenFolder('llama') } as const
const STEP: StepConfig = {
  ...{ temperature: 1, learningRate: 0.01, beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0, maxGradNorm: 1 },
}
const request = (values: Partial<GenerateRequest> = {}): GenerateRequest => ({
  policy: null,
  prompt: [1, 2],
  seeds: [1],
  maxNewTokens: 3,
  sampling: { temperature: 1, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1 },
  stopTokenIds: [],
  ...values,
})

/** Its rollouts end when the test says so. */
class FakeMember extends FakeEngine implements PoolMember {
  readonly finish: (() => void)[] = []
  joined = false

  constructor(private readonly devices: 'sum' | 'refuse' = 'refuse') {
    super()
  }

  override generate(asked: GenerateRequest): Promise<Completion[]> {
    return new Promise((resolve) => this.finish.push(() => resolve(super.generate(asked))))
  }

  async groupId(): Promise<Uint8Array> {
    if (this.devices === 'sum') return new Uint8Array(128)
    throw new BackendError('NCCL was not found', { op: 'group_id' })
  }

  async joinGroup(): Promise<void> {
    this.joined = true
  }

  async leaveGroup(): Promise<void> {
    this.joined = false
  }

  async trainPart(policy: string, sequences: never[], loss: never, { config, part }: PartWork) {
    await part.sum(this.joined ? null : [])
    return { ...(await this.trainStep(policy, sequences, loss, config)), gradNorm: 1 }
  }
}

async function pooled(count: number, devices: 'sum' | 'refuse' = 'refuse') {
  const members = Array.from({ length: count }, () => new FakeMember(devices))
  const said: string[] = []
  const pool = new EnginePool(members, { log: (line) => said.push(line) })
  const info = await pool.load(SOURCE)
  return { members, pool, said, info }
}

describe('where a pool has rollouts computed', () => {
  const busy = (members: readonly FakeMember[]) => members.map(({ finish }) => finish.length)

  it('is the engine with the fewest completions under way, of equals the first; a request stays whole', async () => {
    const { members, pool } = await pooled(3)
    const asked = [[1, 2, 3], [4], [5], [6], [7, 8, 9, 10], [11]].map((seeds) => pool.generate(request({ seeds })))
    expect(busy(members)).toEqual([1, 3, 2]) // 3 | 1, 1, then 4 | 1, 1
    members[2]!.finish[0]!()
    await asked[2]
    members[2]!.finish[1]!()
    await asked[4]
    void pool.generate(request())
    expect(busy(members)).toEqual([1, 3, 3])
  })

  it('are the engines that sample, where the policy’s GPUs are divided', async () => {
    const { members, pool } = await pooled(4)
    const gpus = { training: 1, inference: 2 }
    expect((await pool.openPolicy('p', { lora: null, seed: 0, gpus })).gpus).toEqual({ ...gpus, apart: true })
    for (let i = 0; i < 4; i++) void pool.generate(request({ policy: 'p' }))
    expect(busy(members)).toEqual([2, 2, 0, 0])
    void pool.generate(request()) // the base is everybody's
    expect(busy(members)).toEqual([2, 2, 1, 0])
  })

  it.each([
    [undefined, { training: 3, inference: 3, apart: false }],
    [
      { training: 1, inference: 1 },
      { training: 3, inference: 3, apart: false },
    ], // what clients send when nobody asks
    [
      { training: 2, inference: 2 },
      { training: 3, inference: 3, apart: false },
    ], // more than there are
    [
      { training: 0, inference: 3 },
      { training: 3, inference: 3, apart: false },
    ],
    [
      { training: 1, inference: 2 },
      { training: 1, inference: 2, apart: true },
    ],
    [
      { training: 2, inference: 1 },
      { training: 2, inference: 1, apart: true },
    ],
  ])('of three GPUs and the wish %j: %j', async (gpus, expected) => {
    const { pool } = await pooled(3)
    expect((await pool.openPolicy('p', { lora: null, seed: 0, ...(gpus && { gpus }) })).gpus).toEqual(expected)
  })
})

describe('a pool of fakes', () => {
  const rows = [{ prompt: [1], completion: [2] }]
  const linear = { dLogprobs: Float32Array.of(1) }

  it('says how gradients are summed, and is told apart from one engine', async () => {
    const { info, said } = await pooled(2)
    expect(info.deviceDescription).toBe('2 × no device')
    expect(said).toEqual(["The gradients of 2 engines are summed in the host's memory, which takes longer (NCCL was not found)."])
    expect((await pooled(3, 'sum')).said).toEqual(['3 GPUs sum their gradients among themselves.'])
  })

  it('leaves the group at once when an engine fails behind the others’ backs, and ends', async () => {
    const { members, pool } = await pooled(3, 'sum')
    await pool.openPolicy('p', { lora: null, seed: 0 })
    members[1]!.trainStep = () => Promise.reject(new BackendError('gone', { op: 'adamw' }))
    await expect(pool.trainStep('p', rows, linear, STEP)).rejects.toThrow('gone')
    expect(members.map(({ joined }) => joined)).toEqual([false, false, false])
    await expect(pool.status()).rejects.toThrow(/Start the server again/)
  })

  it('that failed together forms its group anew and goes on', async () => {
    const { members, pool, said } = await pooled(2, 'sum')
    await pool.openPolicy('p', { lora: null, seed: 0 })
    const whole = members.map((member) => member.trainStep)
    for (const member of members) member.trainStep = () => Promise.reject(new Error('no finite norm'))
    await expect(pool.trainStep('p', rows, linear, STEP)).rejects.toThrow('no finite norm')
    expect(members.map(({ joined }) => joined)).toEqual([true, true])
    expect(said).toHaveLength(2)
    for (const [i, member] of members.entries()) member.trainStep = whole[i]!
    expect(await pool.trainStep('p', rows, linear, STEP)).toMatchObject({ policyVersion: 1 })
  })

  it('whose engines came to different gradients ends: their weights would part', async () => {
    const { members, pool } = await pooled(2)
    await pool.openPolicy('p', { lora: null, seed: 0 })
    const whole = members[1]!.trainPart.bind(members[1])
    members[1]!.trainPart = async (...args) => ({ ...(await whole(...args)), gradNorm: 1.5 })
    await expect(pool.trainStep('p', rows, linear, STEP)).rejects.toThrow(
      "The engines' gradients differ: their norms are 1, 1.5.",
    )
    await expect(pool.status()).rejects.toThrow(/Start the server again/)
  })

  it('with an engine whose thread is gone takes no more calls', async () => {
    const { members, pool } = await pooled(2)
    members[1]!.status = () => Promise.reject(new BackendError("The engine's thread ended with code 1.", { op: 'worker' }))
    await expect(pool.status()).rejects.toThrow('ended with code 1')
    await expect(pool.openPolicy('p', { lora: null, seed: 0 })).rejects.toThrow(/Engine 1 of 2 is gone.*Start the server again/)
  })

  it('needs engines that are alike', async () => {
    const members = [
      new FakeMember(),
      Object.assign(new FakeMember(), { load: async () => ({ device: 'cpu', dtype: 'bf16', deviceDescription: 'x' }) }),
    ]
    await expect(new EnginePool(members as PoolMember[]).load(SOURCE)).rejects.toThrow(
      /must be alike; one computes in f32 on no device, another in bf16 on x/,
    )
    expect(() => new EnginePool([])).toThrow('at least one engine')
  })
})

describe('GPUs that train and GPUs that sample', () => {
  const engines: EnginePool[] = []
  afterEach(async () => {
    for (const engine of engines.splice(0)) await engine.close()
  })

  it('compute what is theirs, and hold the same policy after every step', async () => {
    const members = [0, 1, 2].map(() => new LocalEngine({ device: 'cpu', precision: 'f32' }))
    const pool = new EnginePool(members)
    engines.push(pool)
    await pool.load(SOURCE)
    const lora = { rank: 2, alpha: 4, targets: LORA_TARGETS, dropout: 0 }
    await pool.openPolicy('p', { lora, seed: 0, gpus: { training: 1, inference: 2 } })
    const rows = [3, 4, 5, 6].map((token) => ({ prompt: [1, token], completion: [7, 8, token] }))
    for (let step = 0; step < 2; step++) {
      await Promise.all([1, 2, 3].map((seed) => pool.generate(request({ policy: 'p', seeds: [seed] }))))
      await pool.trainStep('p', rows, (logprobs) => ({ dLogprobs: logprobs.map(() => -0.1) }), STEP)
    }
    const work = (await Promise.all(members.map((member) => member.status()))).map((status) => status.work)
    expect(work.map(({ trainedTokens }) => trainedTokens > 0)).toEqual([false, false, true])
    expect(work.map(({ sampledTokens }) => sampledTokens > 0)).toEqual([true, true, false])
    expect((await pool.status()).work.sampledTokens).toBe(2 * 3 * 3)
    const [first, ...others] = await Promise.all(members.map((member) => member.logits('p', [1, 3, 7])))
    expect(others).toEqual([first, first])
    expect(first).not.toEqual(await members[0]!.logits(null, [1, 3, 7]))
  })
})
