// Continuous batching. Requests (jobs.ts) wait, then run (roster.ts); each `step` computes either the prompts of newcomers or one more token of
// everybody who runs (pass-planner.ts), whatever their adapters; policies with weights of their own get a pass of their own.
// Nothing here touches a device: the runner computes a plan and answers with the sampled tokens.

import { ArborError } from '../errors'
import type { BatchLimits, BatchPlan } from './batch-plan'
import type { Completion, GenerateRequest } from './engine'
import { type JobOptions, Jobs } from './jobs'
import { KvCache } from './kv-cache'
import { PassPlanner } from './pass-planner'
import { Roster } from './roster'
import type { Sequence, SequenceToken } from './sequence'

export interface Runner {
  /** A plan that follows (BatchPlan.ahead) may be run before the answer to this one is called. */
  readonly runsAhead?: boolean
  /** Enqueues the plan's rows and its samples. The answer waits for them: a token for each sequence of `plan.sampled`, in order. */
  run(plan: BatchPlan): () => Promise<SequenceToken[]>
}

/** A plan that the device works on. */
interface Flight {
  readonly weightSet: string | null
  readonly sequences: readonly Sequence[]
  readonly tokens: () => Promise<readonly SequenceToken[]>
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
  readonly #roster: Roster
  readonly #jobs: Jobs
  readonly #planner: PassPlanner
  #flight: Flight | null = null

  constructor(
    private readonly runner: Runner,
    readonly limits: BatchLimits & { readonly slots: number; readonly roomySlots?: number },
  ) {
    this.cache = new KvCache(limits.slots, limits.roomySlots)
    this.#roster = new Roster(this.cache, this.counters)
    this.#jobs = new Jobs(this.#roster, this.counters)
    this.#planner = new PassPlanner(this.#roster, limits, runner)
  }

  get running(): number {
    return this.#roster.running.size
  }

  get waiting(): number {
    return this.#roster.waiting
  }

  get busy(): boolean {
    return this.#jobs.busy
  }

  /** Queues one sequence per seed; resolves when all have ended. The caller checked the request and calls `step` while `busy`. */
  add(request: GenerateRequest, options: JobOptions): Promise<Completion[]> {
    checkFits(request, this.limits.slots)
    return this.#jobs.add(request, options)
  }

  /** One forward pass for each set of weights: prompts first, so that many decode together. */
  async step(): Promise<void> {
    this.#jobs.dropAborted()
    if (this.#flight) return this.#land(this.#flight)
    for (const weightSet of this.#jobs.weightSets) await this.#stepOver(weightSet)
  }

  async #stepOver(weightSet: string | null): Promise<void> {
    const plan = this.#planner.prompts(weightSet) ?? this.#planner.decode(weightSet)
    if (plan) await this.#land(this.#launch(plan, weightSet))
  }

  #launch(plan: BatchPlan, weightSet: string | null): Flight {
    const sequences = plan.sampled
    this.#count(plan)
    const tokens = this.#enqueue(plan)
    for (let i = 0; i < sequences.length; i++) {
      sequences[i]!.place = i
      if (!this.runner.runsAhead) continue
      sequences[i]!.inFlight++
      sequences[i]!.prefilling = false // all of its prompt is under way: it may go on before its first token arrives
    }
    return { weightSet, sequences, tokens }
  }

  /** What can't be enqueued is heard of when the flight lands: those before it are well. */
  #enqueue(plan: BatchPlan): Flight['tokens'] {
    try {
      return this.runner.run(plan)
    } catch (error) {
      return () => Promise.reject(error)
    }
  }

  /** Waits for a flight. Where the device can go on by itself, the next one is on its way before: it never waits for us. */
  async #land(flight: Flight): Promise<void> {
    const { sequences, weightSet } = flight
    this.#flight = null
    const next = this.#planner.decodeAhead(sequences, weightSet)
    if (next) this.#flight = this.#launch(next, weightSet)
    try {
      const tokens = await flight.tokens()
      for (let i = 0; i < tokens.length; i++) {
        const sequence = sequences[i]!
        sequence.inFlight = Math.max(0, sequence.inFlight - 1)
        this.#jobs.take(sequence, tokens[i]!)
      }
    } catch (error) {
      this.#flight = null
      throw error
    }
  }

  /** Ends everything in flight with an error and empties the cache: after a device fault its contents can't be trusted. */
  fail(error: unknown): void {
    this.#jobs.fail(error)
    this.#roster.clear()
    this.#flight = null
  }

  #count(plan: BatchPlan): void {
    const { counters } = this
    counters.steps++
    if (plan.ahead) counters.ahead++
    if (plan.decode) counters.decodeTokens += plan.sampled.length
    else counters.prefillTokens += plan.rows
    counters.policiesAtOnce = Math.max(counters.policiesAtOnce, policiesOf(plan.sampled))
  }
}

function policiesOf(sequences: readonly Sequence[]): number {
  const first = sequences[0]?.policy
  if (sequences.every(({ policy }) => policy === first)) return Math.min(1, sequences.length)
  return new Set(sequences.map(({ policy }) => policy)).size
}

/** A sequence that could not run even alone would wait for ever. */
function checkFits({ prompt, maxNewTokens }: GenerateRequest, slots: number): void {
  const needed = prompt.length + Math.max(maxNewTokens - 1, 0) // the last token's keys and values are never needed
  if (needed > slots)
    throw new ArborError(
      `A prompt of ${prompt.length} tokens with up to ${maxNewTokens} new ones needs ${needed} slots of the KV cache, which has ` +
        `${slots}. Ask for at most ${Math.max(slots + 1 - prompt.length, 0)} new tokens, or start with a larger cache.`,
      { code: 'kv_cache_too_small' },
    )
}
