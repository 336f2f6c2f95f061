// Continuous batching. Requests wait, then run; each `step` computes either the prompts of newcomers or one more token of everybody
// who runs, whatever their adapters; policies with weights of their own get a pass of their own. Nothing here touches a device: the runner computes a plan and answers with the sampled tokens.

import { ArborError } from '../errors'
import { type BatchLimits, BatchPlan } from './batch-plan'
import type { Completion, GenerateControl, GenerateRequest } from './engine'
import { KvCache } from './kv-cache'
import type { TokenMask } from './sampling'
import { Sequence, type SequenceToken } from './sequence'

export interface Runner {
  /** `run` has enqueued all its work when it returns its promise, and a plan that follows (BatchPlan.follow) may be run before that resolves. */
  readonly runsAhead?: boolean
  /** Computes the plan's rows and samples; one answer per sequence of `plan.sampled`, in order. */
  run(plan: BatchPlan): Promise<SequenceToken[]>
}

export interface SchedulerOptions {
  readonly policyVersion: number
  /** Name of the policy where it has weights of its own. */
  readonly weightSet?: string | null
  readonly control?: GenerateControl
}

/** Slots that a sequence sets aside at once where the device runs ahead: as long a pass needn't be told what it sees. */
const RESERVED = 64

/** A plan that the device works on. */
interface Flight {
  readonly weightSet: string | null
  readonly sequences: readonly Sequence[]
  readonly tokens: Promise<readonly SequenceToken[]>
}

/** The completions of one request. */
interface Job {
  readonly control: GenerateControl
  readonly completions: Completion[]
  remaining: number
  resolve(completions: Completion[]): void
  reject(error: unknown): void
}

export class Scheduler {
  readonly cache: KvCache
  /** What was done so far; tests prove by it which path ran. */
  readonly counters = {
    prefillTokens: 0,
    decodeTokens: 0,
    sampledTokens: 0,
    steps: 0,
    ahead: 0,
    preemptions: 0,
    policiesAtOnce: 0,
  }
  #waiting: Sequence[] = []
  /** In the order they were let in; whoever comes later gives way when slots run short. */
  readonly #running = new Set<Sequence>()
  readonly #jobs = new Map<Sequence, Job>()
  readonly #plan: BatchPlan
  #flight: Flight | null = null

  constructor(
    private readonly runner: Runner,
    readonly limits: BatchLimits & { readonly slots: number; readonly roomySlots?: number },
  ) {
    this.cache = new KvCache(limits.slots, limits.roomySlots)
    this.#plan = new BatchPlan(limits)
  }

  get running(): number {
    return this.#running.size
  }

  get waiting(): number {
    return this.#waiting.length
  }

  get busy(): boolean {
    return this.#jobs.size > 0
  }

  /** Queues one sequence per seed; resolves when all have ended. The caller checked the request and calls `step` while `busy`. */
  add(request: GenerateRequest, options: SchedulerOptions): Promise<Completion[]> {
    this.#checkFits(request)
    const { policyVersion, weightSet = null, control = {} } = options
    const sequences = request.seeds.map((_, i) => new Sequence(request, i, policyVersion, weightSet))
    return new Promise((resolve, reject) => {
      const job: Job = { control, completions: [], remaining: sequences.length, resolve, reject }
      if (sequences.length === 0) resolve([])
      for (const sequence of sequences) {
        this.#jobs.set(sequence, job)
        if (control.allowedTokens) sequence.allowed = () => askAllowed(sequence, control.allowedTokens!)
      }
      for (const sequence of sequences)
        if (control.signal?.aborted) this.#finish(sequence, 'abort')
        else if (request.maxNewTokens === 0) this.#finish(sequence, 'length')
        else this.#waiting.push(sequence)
    })
  }

  /** One forward pass for each set of weights: prompts first, so that many decode together. */
  async step(): Promise<void> {
    this.#dropAborted()
    if (this.#flight) return this.#land(this.#flight)
    const sets = new Set([...this.#jobs.keys()].map(({ weightSet }) => weightSet))
    for (const weightSet of sets) await this.#stepOver(weightSet)
  }

  async #stepOver(weightSet: string | null): Promise<void> {
    const plan = this.#schedulePrefill(weightSet) ?? this.#scheduleDecode(weightSet)
    if (plan) await this.#land(this.#launch(plan, weightSet))
  }

  #launch(plan: BatchPlan, weightSet: string | null): Flight {
    this.counters.steps++
    const sequences = plan.sampled
    this.counters.policiesAtOnce = Math.max(this.counters.policiesAtOnce, policiesOf(sequences))
    const tokens = this.runner.run(plan)
    tokens.catch(() => {}) // heard when the flight lands
    for (let i = 0; i < sequences.length; i++) {
      sequences[i]!.place = i
      if (this.runner.runsAhead) sequences[i]!.inFlight++
    }
    return { weightSet, sequences, tokens }
  }

  /** Waits for a flight. Where the device can go on by itself, the next one is on its way before: it never waits for us. */
  async #land(flight: Flight): Promise<void> {
    this.#flight = null
    const next = this.#scheduleAhead(flight)
    if (next) {
      this.counters.ahead++
      this.#flight = this.#launch(next, flight.weightSet)
    }
    try {
      const tokens = await flight.tokens
      for (let i = 0; i < tokens.length; i++) {
        const sequence = flight.sequences[i]!
        sequence.inFlight = Math.max(0, sequence.inFlight - 1)
        this.#postprocess(sequence, tokens[i]!)
      }
    } catch (error) {
      this.#flight = null
      throw error
    }
  }

  /** Ends everything in flight with an error and empties the cache: after a device fault its contents can't be trusted. */
  fail(error: unknown): void {
    for (const [sequence, job] of this.#jobs) {
      this.#release(sequence)
      job.reject(error)
    }
    this.#jobs.clear()
    this.#waiting = []
    this.#running.clear()
    this.#flight = null
    this.cache.clear()
  }

  /** The next tokens of prompts, in order of arrival, as far as rows and slots allow. */
  #schedulePrefill(weightSet: string | null): BatchPlan | null {
    const plan = this.#plan
    plan.clear()
    for (const sequence of this.#runningOver(weightSet)) // a preempted one has left the set by then
      if (sequence.prefilling && plan.room > 0 && this.#running.has(sequence)) this.#prefill(sequence)
    while (plan.room > 0 && this.#running.size < this.limits.sequences) {
      const sequence = this.#waiting.find((one) => one.weightSet === weightSet)
      if (!sequence || !this.#admit(sequence)) break
      this.#waiting.splice(this.#waiting.indexOf(sequence), 1)
      this.#running.add(sequence)
      this.#prefill(sequence)
    }
    if (plan.empty) return null
    this.counters.prefillTokens += plan.build().rows
    return plan
  }

  /** Lets a waiting sequence hold what is cached of it, if the rest fits beside one more token for each that runs. */
  #admit(sequence: Sequence): boolean {
    const { cache } = this
    sequence.node = cache.open(sequence.policy, sequence.policyVersion)
    this.#descend(sequence)
    const missing = sequence.tokens.length - sequence.slots.length
    if (missing + this.#running.size > cache.available && this.#running.size > 0) {
      this.#release(sequence)
      return false
    }
    return true
  }

  /** Takes over what is cached of a sequence's next tokens. */
  #descend(sequence: Sequence): void {
    const known = sequence.slots.length
    sequence.node = this.cache.descend(sequence.node!, sequence.tokens, sequence.slots)
    sequence.sharedSlots = sequence.slots.length
    if (sequence.completion.length > 0) return // it comes back after it gave way
    sequence.cachedTokens = (known === 0 ? 0 : sequence.cachedTokens) + sequence.sharedSlots - known
  }

  /** Puts the next part of a sequence's tokens into the plan. What others computed since, or compute in this very pass, is shared. */
  #prefill(sequence: Sequence): void {
    const plan = this.#plan
    const { tokens, slots } = sequence
    this.#descend(sequence)
    const from = slots.length
    const count = Math.min(tokens.length - from, plan.room)
    if (count > 0) {
      if (!this.#makeRoom(sequence, count)) return
      sequence.node = this.cache.extend(sequence.node!, tokens, { slots, count })!
      sequence.sharedSlots = slots.length
      plan.compute(sequence, from, slots.length)
    }
    if (slots.length < tokens.length) return
    // A prompt that is wholly cached still needs its last row's hidden state: that row is computed again, to the same bits.
    if (!plan.computes(slots.at(-1)!)) {
      if (plan.room === 0) return
      plan.compute(sequence, slots.length - 1, slots.length)
      if (sequence.completion.length === 0) sequence.cachedTokens--
    }
    plan.sample(sequence)
  }

  /** One row for each running sequence: its last token. */
  #scheduleDecode(weightSet: string | null): BatchPlan | null {
    const plan = this.#plan
    this.#beginDecode({ ahead: false })
    for (const sequence of this.#runningOver(weightSet)) {
      if (!this.#running.has(sequence) || !this.#makeRoom(sequence, 1)) continue
      this.#decode(sequence)
    }
    return plan.empty ? null : this.#endDecode()
  }

  /**
   * One more row for each sequence of a flight that may go on, its token still unknown; null when the host has to decide first. A sequence that turns
   * out to have ended has one row too many, which nobody reads.
   */
  #scheduleAhead({ sequences, weightSet }: Flight): BatchPlan | null {
    if (!this.runner.runsAhead || this.#waiting.length > 0) return null
    if (sequences.some(({ watched }) => watched)) return null // the flight's own samples aren't even enqueued yet
    const going: Sequence[] = []
    for (const sequence of this.#running) {
      if (!sequence.wantsMore) continue
      if (sequence.weightSet !== weightSet || !sequence.runsAhead || sequence.inFlight === 0) return null
      going.push(sequence)
    }
    if (going.length === 0 || going.length > this.cache.available) return null
    this.#beginDecode({ ahead: true })
    for (const sequence of going) this.#decode(sequence)
    return this.#endDecode()
  }

  #beginDecode({ ahead }: { ahead: boolean }): void {
    const plan = this.#plan
    plan.clear()
    plan.decode = true
    plan.ahead = ahead
    plan.rounds = this.runner.runsAhead ?? false // there a recorded pass is worth more than the rows that make up its size
  }

  #endDecode(): BatchPlan {
    const plan = this.#plan.build()
    this.counters.decodeTokens += plan.sampled.length
    return plan
  }

  /** Puts a row for the sequence's newest token into the plan. There is a slot for it. */
  #decode(sequence: Sequence): void {
    const { slots, reserve } = sequence
    if (this.runner.runsAhead && reserve.length === 0) this.cache.reserve(reserve, Math.min(RESERVED, sequence.tokensLeft))
    slots.push(this.cache.next(reserve))
    this.#plan.decodes(sequence)
  }

  #runningOver(weightSet: string | null): Sequence[] {
    return [...this.#running].filter((sequence) => sequence.weightSet === weightSet)
  }

  /** Sends the youngest back to wait until `count` slots are to be had; false when that was `sequence` itself. */
  #makeRoom(sequence: Sequence, count: number): boolean {
    while (count > this.cache.available) {
      const youngest = [...this.#running].at(-1)!
      this.#running.delete(youngest)
      this.#release(youngest)
      this.#waiting.unshift(youngest)
      this.counters.preemptions++
      if (youngest === sequence) return false
    }
    return true
  }

  #postprocess(sequence: Sequence, token: SequenceToken): void {
    const job = this.#jobs.get(sequence)
    if (!job) return // its request failed meanwhile
    sequence.prefilling = false
    try {
      if (sequence.failure) throw sequence.failure.error
      sequence.append(token)
      this.counters.sampledTokens++
      const answer = job.control.onTokens?.(sequence.index, sequence.completion)
      const reason = job.control.signal?.aborted ? 'abort' : (sequence.ended ?? answer ?? null)
      if (reason) this.#finish(sequence, reason)
    } catch (error) {
      for (const [other, its] of this.#jobs) if (its === job) this.#end(other)
      this.#dropEnded()
      job.reject(error)
    }
  }

  #finish(sequence: Sequence, reason: Completion['finishReason']): void {
    const job = this.#jobs.get(sequence)!
    job.completions[sequence.index] = sequence.toCompletion(reason)
    this.#end(sequence)
    if (--job.remaining === 0) job.resolve(job.completions)
  }

  #dropAborted(): void {
    let any = false
    for (const [sequence, job] of this.#jobs)
      if (job.control.signal?.aborted) {
        this.#finish(sequence, 'abort')
        any = true
      }
    if (any) this.#dropEnded()
  }

  /** Takes a sequence from those that run and frees what it holds. One that waits leaves its line by `dropEnded`. */
  #end(sequence: Sequence): void {
    this.#release(sequence)
    this.#jobs.delete(sequence)
    this.#running.delete(sequence)
  }

  #dropEnded(): void {
    this.#waiting = this.#waiting.filter((sequence) => this.#jobs.has(sequence))
  }

  /** Frees a sequence's own slots and lets go of its prefix. It can start again: its tokens stay. */
  #release(sequence: Sequence): void {
    if (!sequence.node) return
    this.cache.free(sequence.slots.slice(sequence.sharedSlots))
    this.cache.unreserve(sequence.reserve)
    this.cache.release(sequence.node)
    sequence.node = null
    sequence.slots.length = 0
    sequence.sharedSlots = 0
    sequence.prefilling = true
  }

  #checkFits({ prompt, maxNewTokens }: GenerateRequest): void {
    const needed = prompt.length + Math.max(maxNewTokens - 1, 0) // the last token's keys and values are never needed
    if (needed > this.limits.slots)
      throw new ArborError(
        `A prompt of ${prompt.length} tokens with up to ${maxNewTokens} new ones needs ${needed} slots of the KV cache, which has ` +
          `${this.limits.slots}. Ask for at most ${Math.max(this.limits.slots + 1 - prompt.length, 0)} new tokens, or start with a larger cache.`,
        { code: 'kv_cache_too_small' },
      )
  }
}

function policiesOf(sequences: readonly Sequence[]): number {
  const first = sequences[0]?.policy
  if (sequences.every(({ policy }) => policy === first)) return Math.min(1, sequences.length)
  return new Set(sequences.map(({ policy }) => policy)).size
}

/** What may come next of a sequence. A failure is kept for its request alone: everybody else's tokens of this pass are good. */
async function askAllowed(
  sequence: Sequence,
  allowedTokens: NonNullable<GenerateControl['allowedTokens']>,
): Promise<TokenMask | null> {
  try {
    const mask = await allowedTokens(sequence.index, sequence.completion)
    if (mask?.every((word) => word === 0))
      throw new ArborError(`No token may follow the ${sequence.completion.length} sampled so far.`, { code: 'no_token_allowed' })
    return mask
  } catch (error) {
    sequence.failure = { error }
    return null
  }
}
