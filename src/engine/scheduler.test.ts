import { describe, expect, it } from 'vitest'
import type { BatchPlan } from './batch-plan'
import type { GenerateRequest } from './engine'
import { addToken, emptyMask, hasToken, type TokenMask, uniform } from './sampling'
import { type Runner, Scheduler } from './scheduler'
import type { SequenceToken } from './sequence'

/**
 * A model without weights: each slot remembers the policy, token and position it was computed for, and the next token is a hash of
 * what a row's context holds. So a slot that is stale, shared wrongly or read too early changes the tokens.
 */
class HashRunner implements Runner {
  readonly memory = new Map<number, string>()
  readonly batches: { rows: number; segments: number; samples: number; policies: number }[] = []
  computed = 0
  failNext: Error | null = null

  run(plan: BatchPlan): () => Promise<SequenceToken[]> {
    return async () => {
      await Promise.resolve()
      if (this.failNext) throw this.failNext
      return this.compute(plan)
    }
  }

  protected compute(plan: BatchPlan): SequenceToken[] {
    this.batches.push({
      rows: plan.rows,
      segments: plan.segmentCount,
      samples: plan.sampled.length,
      policies: plan.policies.length,
    })
    this.computed += plan.rows
    const policyOf = (row: number) =>
      plan.policies.find(({ rowStart, rowCount }) => row >= rowStart && row < rowStart + rowCount)?.policy ?? 'base'
    for (let row = 0; row < plan.rows; row++)
      this.memory.set(plan.slots[row]!, `${policyOf(row)} ${plan.ids[row]} ${plan.positions[row]}`)
    const seen: string[][] = []
    for (let s = 0; s < plan.segmentCount; s++) {
      const [rowStart, rowCount, contextStart, contextLength] = plan.segments.subarray(4 * s, 4 * s + 4) as unknown as number[]
      const context = Array.from(
        plan.context.subarray(contextStart!, contextStart! + contextLength!),
        (slot) => this.memory.get(slot)!,
      )
      for (let i = 0; i < rowCount!; i++) seen[rowStart! + i] = context.slice(0, contextLength! - rowCount! + i + 1)
    }
    return plan.sampled.map((sequence, i) => {
      const token = hash(`${seen[plan.liveStart + plan.sampleRows[i]!]!.join('|')} ${sequence.uniform}`) % 50
      return { token, logprob: -token, plainLogprob: -token }
    })
  }
}

/** Waits for what may come next, and takes the lowest of it. */
class MaskedRunner extends HashRunner {
  override run(plan: BatchPlan): () => Promise<SequenceToken[]> {
    const asked = plan.sampled.map((sequence) => sequence.allowed?.() ?? null)
    const masked = (sampled: SequenceToken, mask: TokenMask | null) => (mask ? { ...sampled, token: lowest(mask) } : sampled)
    const answer = super.run(plan)
    return async () => {
      const masks = await Promise.all(asked)
      return (await answer()).map((sampled, i) => masked(sampled, masks[i] ?? null))
    }
  }
}

function only(...tokens: number[]): TokenMask {
  const mask = emptyMask(50)
  for (const token of tokens) addToken(mask, token)
  return mask
}

const lowest = (mask: TokenMask) => range(50).find((token) => hasToken(mask, token)) ?? 0

/** The same on a device that computes beside the host: a plan that follows names its tokens by their place in the plan before. */
class AheadRunner extends HashRunner {
  readonly runsAhead = true
  private last: readonly SequenceToken[] = []
  private lastWatched = false

  override run(plan: BatchPlan): () => Promise<SequenceToken[]> {
    if (plan.ahead && this.lastWatched) throw new Error('the pass before waits for the host, and this one would pass it by')
    this.lastWatched = plan.sampled.some((sequence) => sequence.watched)
    if (plan.ahead) for (let row = 0; row < plan.rows; row++) plan.ids[row] = this.last[plan.ids[row]!]!.token
    const tokens = this.compute(plan)
    this.last = tokens
    return async () => {
      for (let turns = 0; turns < 3; turns++) await Promise.resolve()
      if (this.failNext) throw this.failNext
      return tokens
    }
  }
}

function hash(text: string): number {
  let h = 2166136261
  for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 16777619) >>> 0
  return h
}

/** What HashRunner's model says, computed the slow way. */
function expected({ policy, prompt, seeds, maxNewTokens }: GenerateRequest): number[][] {
  return seeds.map((seed) => {
    const tokens = [...prompt]
    for (let i = 0; i < maxNewTokens; i++) {
      const context = tokens.map((token, position) => `${policy ?? 'base'} ${token} ${position}`)
      tokens.push(hash(`${context.join('|')} ${uniform(seed, i)}`) % 50)
    }
    return tokens.slice(prompt.length)
  })
}

const SAMPLING = { temperature: 1, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1 }

function request(values: Partial<GenerateRequest>): GenerateRequest {
  return { policy: 'p', prompt: [1, 2, 3], seeds: [7], maxNewTokens: 5, sampling: SAMPLING, stopTokenIds: [], ...values }
}

function setup(limits: { slots?: number; tokens?: number; sequences?: number } = {}, runner = new HashRunner()) {
  const { slots = 200, tokens = 64, sequences = 8 } = limits
  return { runner, scheduler: new Scheduler(runner, { slots, tokens, sequences, context: sequences * slots }) }
}

/** Adds all requests at once and steps until the last has ended. */
async function runAll(scheduler: Scheduler, requests: GenerateRequest[]) {
  const all = Promise.all(requests.map((one) => scheduler.add(one, { policyVersion: 0 })))
  while (scheduler.busy) await scheduler.step()
  return (await all).map((completions) => completions.map(({ tokens }) => tokens))
}

const range = (count: number, start = 0) => Array.from({ length: count }, (_, i) => start + i)

describe('Scheduler', () => {
  it('computes a group that arrives as separate requests once, and all prompts in one pass', async () => {
    const { scheduler, runner } = setup()
    const instructions = range(20, 100)
    const requests = [0, 1, 2, 3].flatMap((rollout) =>
      [200, 300].map((question) => request({ prompt: [...instructions, question, 5], seeds: [rollout] })),
    )
    expect(await runAll(scheduler, requests)).toEqual(requests.map(expected))
    // Each prompt's last row, which is sampled from, is a segment behind the others; so the policy has two ranges.
    expect(runner.batches[0]).toEqual({ rows: 20 + 2 + 2, segments: 4, samples: 8, policies: 2 })
    expect(scheduler.counters).toMatchObject({ prefillTokens: 24, decodeTokens: 8 * 4, steps: 5, preemptions: 0 })
    expect(scheduler.cache.usedSlots).toBe(0)
  })

  it('n seeds of one prompt share all of it; a late twin computes one row again', async () => {
    const { scheduler, runner } = setup()
    const one = request({ prompt: range(10), seeds: [1, 2, 3] })
    expect(await runAll(scheduler, [one])).toEqual([expected(one)])
    expect(runner.batches[0]).toMatchObject({ rows: 10, samples: 3 })
    const late = scheduler.add(one, { policyVersion: 0 })
    while (scheduler.busy) await scheduler.step()
    expect((await late).map((completion) => completion.tokens)).toEqual(expected(one))
    expect((await late).map((completion) => completion.cachedTokens)).toEqual([9, 10, 10])
    expect(scheduler.counters.prefillTokens).toBe(11)
  })

  it('takes long prompts in parts, and twins share each part as soon as it is computed', async () => {
    const { scheduler } = setup({ tokens: 16 })
    const requests = [1, 2].map((seed) => request({ prompt: range(50), seeds: [seed] }))
    expect(await runAll(scheduler, requests)).toEqual(requests.map(expected))
    expect(scheduler.counters.prefillTokens).toBe(50)
  })

  it('decodes several policies and the base in one pass, each in its own range of rows', async () => {
    const { scheduler, runner } = setup()
    const requests = ['a', null, 'b', 'a', null].map((policy, i) => request({ policy, seeds: [i] }))
    expect(await runAll(scheduler, requests)).toEqual(requests.map(expected))
    expect(runner.batches.at(-1)).toMatchObject({ rows: 5, policies: 2 })
  })

  it('requests that arrive later join those that run', async () => {
    const { scheduler } = setup()
    const first = request({ maxNewTokens: 12 })
    const second = request({ prompt: [1, 2, 9], maxNewTokens: 3 })
    const a = scheduler.add(first, { policyVersion: 0 })
    for (let i = 0; i < 4; i++) await scheduler.step()
    const b = scheduler.add(second, { policyVersion: 0 })
    while (scheduler.busy) await scheduler.step()
    expect([(await a)[0]!.tokens, (await b)[0]!.tokens]).toEqual([expected(first)[0], expected(second)[0]])
    expect((await b)[0]!.cachedTokens).toBe(2)
    expect(scheduler.counters.steps).toBe(1 + 3 + 1 + 8) // the newcomer costs one pass of its own
  })

  it('sends the youngest back when slots run short; it resumes with the same tokens', async () => {
    const { scheduler } = setup({ slots: 40 })
    const requests = range(4).map((seed) => request({ prompt: [50 + seed, 2, 3], seeds: [seed], maxNewTokens: 20 }))
    expect(await runAll(scheduler, requests)).toEqual(requests.map(expected))
    expect(scheduler.counters.preemptions).toBeGreaterThan(0)
    expect(scheduler.cache.evictedTokens).toBeGreaterThan(0)
    expect(scheduler.cache.available).toBe(40)
  })

  it('any mix of requests gets the tokens it would get alone, whatever the sizes (seeded)', async () => {
    let state = 99
    const random = (n: number) => (state = (state * 1103515245 + 12345) % 2147483648) % n
    for (let round = 0; round < 40; round++) {
      const { scheduler } = setup({ slots: 30 + random(60), tokens: 4 + random(20), sequences: 1 + random(4) })
      const requests = range(12).map((i) =>
        request({
          policy: [null, 'a', 'b'][random(3)]!,
          prompt: range(1 + random(15)).map(() => random(2)),
          seeds: range(1 + random(3), i),
          maxNewTokens: random(12),
        }),
      )
      const answers: Promise<unknown>[] = []
      for (const one of requests) {
        answers.push(scheduler.add(one, { policyVersion: 0 }).then((all) => all.map(({ tokens }) => tokens)))
        if (random(2)) await scheduler.step()
      }
      while (scheduler.busy) await scheduler.step()
      expect(await Promise.all(answers)).toEqual(requests.map(expected))
      expect(scheduler.cache.usedSlots).toBe(0)
    }
  })

  it('an abort ends a completion with what it has and frees its slots, waiting or running', async () => {
    const { scheduler } = setup({ sequences: 1 })
    const control = new AbortController()
    const running = scheduler.add(request({ maxNewTokens: 50 }), { policyVersion: 0, control: { signal: control.signal } })
    const waiting = scheduler.add(request({ seeds: [8] }), { policyVersion: 0, control: { signal: control.signal } })
    for (let i = 0; i < 3; i++) await scheduler.step()
    expect(scheduler.cache.usedSlots).toBe(5)
    control.abort()
    await scheduler.step()
    expect((await running)[0]).toMatchObject({ finishReason: 'abort', tokens: expected(request({ maxNewTokens: 3 }))[0] })
    expect((await waiting)[0]).toMatchObject({ finishReason: 'abort', tokens: [] })
    expect([scheduler.busy, scheduler.running, scheduler.waiting, scheduler.cache.usedSlots]).toEqual([false, 0, 0, 0])
  })

  it("stops at a stop token, at onTokens' word, and at the length", async () => {
    const { scheduler } = setup()
    const plain = expected(request({ maxNewTokens: 8 }))[0]!
    const onTokens = (_: number, tokens: readonly number[]) => (tokens.length === 2 ? ('stop' as const) : undefined)
    const all = Promise.all([
      scheduler.add(request({ maxNewTokens: 8, stopTokenIds: [plain[3]!] }), { policyVersion: 4 }),
      scheduler.add(request({ maxNewTokens: 8 }), { policyVersion: 4, control: { onTokens } }),
      scheduler.add(request({ maxNewTokens: 0 }), { policyVersion: 4 }),
    ])
    while (scheduler.busy) await scheduler.step()
    const [stopped, listener, length] = (await all).map((completions) => completions[0]!)
    expect(stopped).toMatchObject({
      finishReason: 'stop',
      tokens: plain.slice(0, plain.indexOf(plain[3]!) + 1),
      policyVersion: 4,
    })
    expect(listener).toMatchObject({ finishReason: 'stop', tokens: plain.slice(0, 2), logprobs: [-plain[0]!, -plain[1]!] })
    expect(length).toMatchObject({ finishReason: 'length', tokens: [] })
  })

  it('an error of onTokens ends its own request only', async () => {
    const { scheduler } = setup()
    const onTokens = () => {
      throw new Error('listener gone')
    }
    const bad = scheduler.add(request({ seeds: [1, 2] }), { policyVersion: 0, control: { onTokens } })
    const rejected = expect(bad).rejects.toThrow('listener gone')
    expect(await runAll(scheduler, [request({})])).toEqual([expected(request({}))])
    await rejected
    expect(scheduler.cache.usedSlots).toBe(0)
  })

  it('asks what may come next, with the tokens so far, of those requests that say so', async () => {
    const { scheduler } = setup({}, new MaskedRunner())
    const asked: number[][] = []
    const allowedTokens = (index: number, tokens: readonly number[]) => {
      asked.push([index, ...tokens])
      return only(40 + tokens.length, 45)
    }
    const masked = scheduler.add(request({ seeds: [1, 2], maxNewTokens: 3 }), { policyVersion: 0, control: { allowedTokens } })
    expect(await runAll(scheduler, [request({})])).toEqual([expected(request({}))])
    expect((await masked).map(({ tokens }) => tokens)).toEqual([
      [40, 41, 42],
      [40, 41, 42],
    ])
    expect(asked).toEqual([[0], [1], [0, 40], [1, 40], [0, 40, 41], [1, 40, 41]])
  })

  it('an error of allowedTokens, or a set without a token, ends its own request only', async () => {
    const { scheduler } = setup({}, new MaskedRunner())
    const failing = (allowedTokens: () => Promise<TokenMask>) =>
      scheduler.add(request({ seeds: [1, 2] }), { policyVersion: 0, control: { allowedTokens } })
    const rejected = [
      expect(failing(() => Promise.reject(new Error('no grammar')))).rejects.toThrow('no grammar'),
      expect(failing(async () => emptyMask(50))).rejects.toMatchObject({ code: 'no_token_allowed' }),
    ]
    expect(await runAll(scheduler, [request({})])).toEqual([expected(request({}))])
    await Promise.all(rejected)
    expect(scheduler.cache.usedSlots).toBe(0)
  })

  it('a device fault rejects what is in flight and empties the cache; the next request starts afresh', async () => {
    const { scheduler, runner } = setup()
    const doomed = scheduler.add(request({}), { policyVersion: 0 })
    const rejected = expect(doomed).rejects.toThrow('boom')
    runner.failNext = new Error('boom')
    await scheduler.step().catch((error) => scheduler.fail(error))
    await rejected
    expect(scheduler.cache.cachedTokens).toBe(0)
    runner.failNext = null
    expect(await runAll(scheduler, [request({})])).toEqual([expected(request({}))])
  })

  it('says what fits when a request never could', () => {
    const { scheduler } = setup({ slots: 40 })
    expect(() => scheduler.add(request({ maxNewTokens: 39 }), { policyVersion: 0 })).toThrow(
      /needs 41 slots.*has 40.*at most 38 new tokens/,
    )
    expect(scheduler.busy).toBe(false)
  })

  describe('on a device that runs ahead', () => {
    const ended = (tokens: number[], stop: readonly number[]) => {
      const end = tokens.findIndex((token) => stop.includes(token))
      return end < 0 ? tokens : tokens.slice(0, end + 1)
    }

    it('samples the tokens that it samples step by step, whoever ends or arrives in between', async () => {
      const { scheduler } = setup({}, new AheadRunner())
      const stopTokenIds = range(12)
      const early = [1, 2, 3].map((seed) => request({ prompt: range(9), seeds: [seed], maxNewTokens: 30, stopTokenIds }))
      const late = request({ prompt: [...range(9), 70, 71], seeds: [4, 5], maxNewTokens: 12 })
      const all = early.map((one) => scheduler.add(one, { policyVersion: 0 }))
      for (let i = 0; i < 5; i++) await scheduler.step()
      all.push(scheduler.add(late, { policyVersion: 0 }))
      while (scheduler.busy) await scheduler.step()
      const answers = (await Promise.all(all)).map((completions) => completions.map(({ tokens }) => tokens))
      const slow = [...early.map((one) => expected(one).map((tokens) => ended(tokens, stopTokenIds))), expected(late)]
      expect(answers).toEqual(slow)
      expect(scheduler.counters.ahead).toBeGreaterThan(10)
      expect(scheduler.cache.usedSlots).toBe(0)
    })

    it('goes step by step where the next token hangs on those before, and under pressure', async () => {
      const penalised = request({ seeds: [1, 2], sampling: { ...SAMPLING, repetitionPenalty: 2 } })
      const { scheduler } = setup({}, new AheadRunner())
      await runAll(scheduler, [penalised])
      expect(scheduler.counters.ahead).toBe(0)
      const tight = setup({ slots: 30, sequences: 3 }, new AheadRunner())
      const requests = [1, 2, 3].map((seed) => request({ prompt: range(6, 10 * seed), seeds: [seed], maxNewTokens: 12 }))
      expect(await runAll(tight.scheduler, requests)).toEqual(requests.map(expected))
      expect(tight.scheduler.counters.preemptions).toBeGreaterThan(0)
    })

    it('waits where the host has a part in a sample, even in the last one of a completion', async () => {
      const { scheduler } = setup({}, new AheadRunner())
      const watched = request({ prompt: range(9), seeds: [1], maxNewTokens: 4, topLogprobs: 1 })
      const free = request({ prompt: range(7), seeds: [2], maxNewTokens: 20 })
      expect(await runAll(scheduler, [watched, free])).toEqual([expected(watched), expected(free)])
      expect(scheduler.counters.ahead).toBeGreaterThan(10)
    })

    it('a pass that fails fails what runs, and the next request starts afresh', async () => {
      const { scheduler, runner } = setup({}, new AheadRunner())
      const one = request({ maxNewTokens: 20 })
      const failed = scheduler.add(one, { policyVersion: 0 })
      failed.catch(() => {})
      for (let i = 0; i < 4; i++) await scheduler.step()
      runner.failNext = new Error('device lost')
      const steps = async () => {
        for (let i = 0; i < 3; i++) await scheduler.step()
      }
      await steps().catch((error: Error) => scheduler.fail(error))
      await expect(failed).rejects.toThrow('device lost')
      runner.failNext = null
      expect(await runAll(scheduler, [one])).toEqual([expected(one)])
    })
  })
})
