// What a pool of engines promises, checked on tiny models against one engine, on whatever backends are given.

import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { Completion, GenerateRequest, LossGradient, StepConfig, TrainLoss, TrainSequence } from '../../src/engine/engine'
import { LORA_TARGETS } from '../../src/engine/engine'
import { EnginePool } from '../../src/engine/engine-pool'
import { LocalEngine } from '../../src/engine/local-engine'
import type { Backend } from '../../src/engine/ops/ops'
import { BackendError } from '../../src/errors'
import { goldenFolder } from '../golden/engine/open-golden'
import { largestGap } from './written-model'

const SOURCE = { name: 'tiny', kind: 'folder', path: goldenFolder('full-qwen2') } as const
// A large eps: where a gradient is nearly zero, AdamW's step would else depend on how it was rounded.
const STEP: StepConfig = {
  ...{ temperature: 0.9, learningRate: 0.05, beta1: 0.9, beta2: 0.999, eps: 0.01, weightDecay: 0.1, maxGradNorm: 1 },
}
const LORA = { rank: 2, alpha: 4, targets: LORA_TARGETS, dropout: 0 } as const

const tokens = (count: number, seed: number) => Array.from({ length: count }, (_, i) => 3 + ((i * 31 + seed * 17) % 100))
/** Five prompts that begin alike, up to three completions each, in no order; one without. */
const ROWS: readonly TrainSequence[] = [0, 1, 2, 0, 3, 1, 4, 0, 2].map((prompt, i) => ({
  prompt: [...tokens(6, 1), ...tokens(2 + prompt, 5 + prompt)],
  completion: i === 4 ? [] : tokens(2 + (i % 4), i),
}))
const PAIRS = ROWS.reduce((sum, { completion }) => sum + completion.length, 0)
const TOKENS = tokens(12, 9)

/** Depends on the row's place and on what it is given, entropies too. */
const curved: LossGradient = (logprobs, entropies) => ({
  dLogprobs: logprobs.map((logprob, i) => 0.02 * (i - 9) + 0.1 * Math.exp(logprob)),
  dEntropies: entropies.map((entropy, i) => 0.01 * Math.cos(i) * entropy),
})
const linear: TrainLoss = { dLogprobs: Float32Array.from({ length: PAIRS }, (_, i) => 0.05 * Math.sin(i + 1)) }

const request = (values: Partial<GenerateRequest> = {}): GenerateRequest => ({
  policy: 'p',
  prompt: tokens(7, 2),
  seeds: [1, 2, 3],
  maxNewTokens: 10,
  sampling: { temperature: 1, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1 },
  stopTokenIds: [],
  ...values,
})
const bits = (all: readonly Completion[]) => all.map((one) => ({ ...one, cachedTokens: 0 }))

export interface Pooled {
  readonly pool: EnginePool
  readonly members: readonly LocalEngine[]
  readonly backends: readonly Backend[]
}

interface Kit {
  /** An engine alone, with the policies `p` (an adapter) and `all` (all weights). */
  alone(): Promise<LocalEngine>
  pooled(count: number): Promise<Pooled>
}

interface PoolOptions {
  readonly counts?: readonly number[]
  /** How far steps may part by rounding, to the rounding of f32: bf16's activations and sums are coarser. */
  readonly coarser?: number
  /** Whether two engines compute the same bits (default): on a real card each may have plans of its own for products. */
  readonly sameBits?: boolean
}

/** Declares the tests for pools of so many engines; `open` gives a fresh backend on that device. */
export function describePool(name: string, open: (index: number) => Promise<Backend>, options: PoolOptions = {}): void {
  const { counts = [2, 3], coarser = 1, sameBits = true } = options
  describe(`EnginePool on ${name}`, { timeout: 60_000 }, () => {
    const closing: (() => Promise<void>)[] = []
    afterEach(async () => {
      for (const close of closing.splice(0)) await close()
    })
    const kit: Kit = {
      async alone() {
        const engine = new LocalEngine({ backend: await open(0) })
        closing.push(() => engine.close())
        await prepare(engine)
        return engine
      },
      async pooled(count) {
        const backends = await Promise.all(Array.from({ length: count }, (_, index) => open(index)))
        const members = backends.map((backend) => new LocalEngine({ backend }))
        const pool = new EnginePool(members)
        closing.push(() => pool.close())
        await prepare(pool)
        return { pool, members, backends }
      },
    }
    describe.each(counts)('of %i', (count) => {
      declareSteps(kit, count, { coarser, sameBits })
      declareRollouts(kit, count)
      declareFailures(kit, count)
    })
  })
}

async function prepare(engine: LocalEngine | EnginePool): Promise<void> {
  await engine.load(SOURCE)
  await engine.openPolicy('p', { lora: LORA, seed: 4 })
  await engine.openPolicy('all', { lora: null, seed: 0 })
}

/** What savePolicy writes, optimizer included, of every member: to the last bit the same. */
async function expectEqualMembers(members: readonly LocalEngine[], policy: string): Promise<void> {
  const root = mkdtempSync(join(tmpdir(), 'arbor-pool-'))
  try {
    const written: Record<string, Buffer>[] = []
    for (const [i, member] of members.entries()) {
      const dir = join(root, String(i))
      await member.savePolicy(policy, dir)
      const files = readdirSync(dir).filter((file) => file.endsWith('.safetensors'))
      expect(files).toHaveLength(2)
      written.push(Object.fromEntries(files.map((file) => [file, readFileSync(join(dir, file))])))
    }
    for (const one of written) expect(one).toEqual(written[0])
  } finally {
    rmSync(root, { recursive: true })
  }
}

function declareSteps({ alone, pooled }: Kit, count: number, { coarser, sameBits }: Required<Omit<PoolOptions, 'counts'>>): void {
  it.each([
    ['an adapter', 'p', curved],
    ['an adapter by a linear loss', 'p', linear],
    ['all weights', 'all', curved],
  ] as const)('steps of %s are one engine’s within rounding, and the engines keep the same bits', async (_, policy, loss) => {
    const one = await alone()
    const { pool, members } = await pooled(count)
    const before = await one.logits(policy, TOKENS)
    for (let step = 1; step <= 3; step++) {
      const [expected, stats] = [await one.trainStep(policy, ROWS, loss, STEP), await pool.trainStep(policy, ROWS, loss, STEP)]
      expect(stats.policyVersion).toBe(step)
      expect(Math.abs(stats.gradNorm / expected.gradNorm - 1)).toBeLessThan((sameBits ? 5e-5 : 1e-4) * coarser)
      expect(stats.tokensUnshared).toBe(expected.tokensUnshared)
      expect(stats.tokens).toBeGreaterThanOrEqual(expected.tokens) // what all prompts share is computed by each engine
      if (loss !== linear) continue
      expect(Math.abs(stats.objective! - expected.objective!)).toBeLessThan(5e-5 * coarser)
      expect(largestGap(stats.logprobs!, expected.logprobs!)).toBeLessThan(1e-3 * coarser)
      expect(largestGap(stats.entropies!, expected.entropies!)).toBeLessThan(1e-3 * coarser)
    }
    const after = await one.logits(policy, TOKENS)
    expect(largestGap(before, after)).toBeGreaterThan(0.05)
    for (const member of members) expect(largestGap(await member.logits(policy, TOKENS), after)).toBeLessThan(2e-3 * coarser)
    await expectEqualMembers(members, policy)
  })

  it('the loss is called once and sees all rows in the order given', async () => {
    const one = await alone()
    const { pool } = await pooled(count)
    const seen: { logprobs: Float32Array; entropies: Float32Array }[] = []
    const watch: LossGradient = async (logprobs, entropies) => {
      seen.push({ logprobs: logprobs.slice(), entropies: entropies.slice() })
      await new Promise((resolve) => setTimeout(resolve, 5))
      return curved(logprobs, entropies)
    }
    await one.trainStep('p', ROWS, watch, STEP)
    await pool.trainStep('p', ROWS, watch, STEP)
    expect(seen).toHaveLength(2)
    expect(seen[1]).toEqual(seen[0])
  })

  it('an engine for whom there is nothing to compute makes the same update', async () => {
    const one = await alone()
    const { pool, members } = await pooled(count)
    const rows = ROWS.slice(0, 1)
    const loss: LossGradient = (logprobs) => ({ dLogprobs: logprobs.map((_, i) => i - 1) })
    for (let step = 0; step < 2; step++) {
      const expected = await one.trainStep('p', rows, loss, STEP)
      const { gradNorm, tokens } = await pool.trainStep('p', rows, loss, STEP)
      expect(tokens).toBe(expected.tokens)
      if (sameBits) expect(gradNorm).toBe(expected.gradNorm)
      else expect(Math.abs(gradNorm / expected.gradNorm - 1)).toBeLessThan(1e-6)
    }
    if (sameBits) expect(await members.at(-1)!.logits('p', TOKENS)).toEqual(await one.logits('p', TOKENS)) // one part: no rounding of its own
    await expectEqualMembers(members, 'p')
  })

  it('a step without a completion is none, and a step of a step’s checkpoint goes on', async () => {
    const { pool, members } = await pooled(count)
    const nothing = ROWS.map(({ prompt }) => ({ prompt, completion: [] }))
    expect(await pool.trainStep('p', nothing, curved, STEP)).toMatchObject({ policyVersion: 0, gradNorm: 0, tokens: 0 })
    await pool.trainStep('p', ROWS, curved, STEP)
    const dir = mkdtempSync(join(tmpdir(), 'arbor-pool-'))
    try {
      await pool.savePolicy('p', dir)
      expect(await pool.openPolicy('q', { lora: LORA, seed: 0, checkpoint: dir })).toMatchObject({ policyVersion: 1 })
      await pool.openSaved('r', dir)
    } finally {
      rmSync(dir, { recursive: true })
    }
    for (const policy of ['p', 'q']) await pool.trainStep(policy, ROWS, curved, STEP)
    const [p, q] = await Promise.all(['p', 'q'].map((policy) => members.at(-1)!.logits(policy, TOKENS)))
    expect(q).toEqual(p)
    const { policies } = await pool.status()
    expect(policies).toEqual([
      { name: 'p', policyVersion: 2 },
      { name: 'all', policyVersion: 0 },
      { name: 'q', policyVersion: 2 },
      { name: 'r', policyVersion: 1 },
    ])
  })
}

function declareRollouts({ alone, pooled }: Kit, count: number): void {
  it('rollouts and logprobs have the bits of one engine’s, whichever engine they come from', async () => {
    const one = await alone()
    const { pool, members } = await pooled(count)
    const requests = [null, 'p', 'all', 'p', 'p'].map((policy, i) =>
      request({ policy, prompt: tokens(5 + i, i), seeds: [i, i + 7] }),
    )
    const expected = await Promise.all(requests.map((each) => one.generate(each)))
    const answers = await Promise.all(requests.map((each) => pool.generate(each)))
    expect(answers.map(bits)).toEqual(expected.map(bits))
    for (const member of members) expect((await member.status()).work.sampledTokens).toBeGreaterThan(0)
    for (const policy of [null, 'p'])
      expect(await pool.logprobs(policy, ROWS, { temperature: 0.7 })).toEqual(
        await one.logprobs(policy, ROWS, { temperature: 0.7 }),
      )
  })

  it('rollouts asked for before a step are of the old policy, those after it of the new one, on every engine', async () => {
    const { pool, members } = await pooled(count)
    const ask = () => members.map((_, i) => pool.generate(request({ seeds: [i] })))
    const before = ask()
    const step = pool.trainStep('p', ROWS, curved, STEP)
    const after = ask()
    await step
    const versions = async (all: Promise<Completion[]>[]) => (await Promise.all(all)).flat().map((one) => one.policyVersion)
    expect(await versions(before)).toEqual(members.map(() => 0))
    expect(await versions(after)).toEqual(members.map(() => 1))
  })
}

function declareFailures({ pooled }: Kit, count: number): void {
  let pool: EnginePool
  let members: readonly LocalEngine[]
  let backends: readonly Backend[]
  beforeEach(async () => {
    ;({ pool, members, backends } = await pooled(count))
  })
  const breakOp = (op: 'logprobBackward' | 'adamw', backend: Backend) => {
    const ops = backend.ops as { -readonly [name in typeof op]: (args: never) => void }
    const whole = ops[op]
    ops[op] = () => {
      ops[op] = whole
      throw new BackendError('the device fell off the bus', { op })
    }
  }

  it('a loss that throws, or answers with no numbers, changes nothing and is told as it is', async () => {
    const before = await members[0]!.logits('p', TOKENS)
    const mine = new Error('mine')
    const step = (loss: LossGradient) => pool.trainStep('p', ROWS, loss, STEP)
    await expect(step(() => Promise.reject(mine))).rejects.toBe(mine)
    await expect(step((logprobs) => ({ dLogprobs: logprobs.fill(Number.NaN) }))).rejects.toThrow(/returned NaN as dLogprobs\[0\]/)
    await expect(step(() => ({ dLogprobs: new Float32Array(3) }))).rejects.toThrow(/returned 3 values as dLogprobs/)
    await expect(step(async () => ({ dLogprobs: new Float32Array(PAIRS).fill(1e38) }))).rejects.toThrow(/norm is/)
    expect(await members.at(-1)!.logits('p', TOKENS)).toEqual(before)
    expect(await step(curved)).toMatchObject({ policyVersion: 1 })
    await expectEqualMembers(members, 'p')
  })

  it('a row that the model can’t be trained on is named by its place among all', async () => {
    const rows = [...ROWS, { prompt: [1, 2], completion: [999] }]
    await expect(pool.trainStep('p', rows, curved, STEP)).rejects.toThrow(`Sequence ${ROWS.length} holds token 999`)
    await expect(pool.logprobs('p', rows, { temperature: 1 })).rejects.toThrow(`Sequence ${ROWS.length} holds token 999`)
    await expect(pool.trainStep('nobody', ROWS, curved, STEP)).rejects.toMatchObject({ code: 'unknown_policy' })
  })

  it('one engine that fails in its part fails the step for all; no update is made, and the next one is', async () => {
    const before = await members[0]!.logits('p', TOKENS)
    breakOp('logprobBackward', backends[1]!)
    await expect(pool.trainStep('p', ROWS, curved, STEP)).rejects.toThrow('the device fell off the bus')
    for (const member of members) expect(await member.logits('p', TOKENS)).toEqual(before)
    expect(await pool.trainStep('p', ROWS, curved, STEP)).toMatchObject({ policyVersion: 1 })
    await expectEqualMembers(members, 'p')
  })

  it('one engine that fails in the update itself ends the pool: the others have made it', async () => {
    breakOp('adamw', backends[1]!)
    await expect(pool.trainStep('p', ROWS, curved, STEP)).rejects.toThrow('the device fell off the bus')
    const ended = /An update was made by some engines and not by all \(the device fell off the bus\)\. Start the server again/
    await expect(pool.generate(request())).rejects.toThrow(ended)
    await expect(pool.trainStep('p', ROWS, curved, STEP)).rejects.toThrow(ended)
    await expect(pool.status()).rejects.toThrow(ended)
  })

  it('a policy that one engine can’t open is open on none', async () => {
    await members[1]!.openPolicy('q', { lora: LORA, seed: 1 })
    await expect(pool.openPolicy('q', { lora: LORA, seed: 1 })).rejects.toThrow('"q" is open already')
    await expect(members[0]!.logits('q', TOKENS)).rejects.toMatchObject({ code: 'unknown_policy' })
    await members[1]!.closePolicy('q')
    await pool.openPolicy('q', { lora: LORA, seed: 1 })
  })

  it('closing it closes its engines; who asks afterwards hears so', async () => {
    await pool.close()
    await expect(pool.generate(request())).rejects.toMatchObject({ code: 'engine_closed' })
    await expect(members[1]!.logits(null, TOKENS)).rejects.toThrow(/was closed/)
    await pool.close()
  })
}
