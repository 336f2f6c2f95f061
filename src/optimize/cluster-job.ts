// A GRPO job on a real Arbor, which knows none of our extensions: a group is posted under each batch id that it asks for, one update each, and
// the records of the steps are made here, of what the client knows.

import { setTimeout } from 'node:timers/promises'
import { ProtocolError } from '../errors'
import { groupAdvantages, type ScaleRewards } from '../grpo'
import type { CheckpointRecord, GRPOStatus, GroupInfo, StepRecord, StepSample } from '../protocol'
import type { GrpoJob } from './arbor-job'
import { ArborReinforceJob } from './reinforce-job'

/** Arbor's trainer may take long over an update; one that died goes on as "running", and asks for nothing more. */
const PATIENCE_MS = 30 * 60_000
const POLL_MS = 500

export interface ClusterJobOptions {
  readonly apiBase: string
  readonly model: string
  readonly trainKwargs: Readonly<Record<string, unknown>>
  readonly steps: number
  /** Longest wait for Arbor to ask for a batch, in milliseconds. */
  readonly patience?: number
  readonly signal?: AbortSignal | undefined
}

interface Step {
  readonly batch: readonly (readonly StepSample[])[]
  readonly groups: readonly GroupInfo[]
  readonly metrics: Readonly<Record<string, number>>
}

export class ArborClusterJob implements GrpoJob {
  readonly first: GRPOStatus
  latest: GRPOStatus
  readonly #posted = new Set<number>() // batch ids
  readonly #records: StepRecord[] = []
  #step = 0
  #lastTime = Date.now() / 1000

  private constructor(
    private readonly options: ClusterJobOptions,
    private readonly job: ArborReinforceJob,
    status: GRPOStatus,
  ) {
    this.first = this.latest = status
  }

  /** Opens the job; takes as long as Arbor's start of inference and trainer. */
  static async open(options: ClusterJobOptions): Promise<ArborClusterJob> {
    const job = new ArborReinforceJob(options.apiBase, options.model, options.trainKwargs)
    await job.initialize()
    return new ArborClusterJob(options, job, await job.getStatus())
  }

  get id(): string {
    return this.first.job_id
  }

  get model(): string {
    return this.latest.current_model
  }

  /** Posts the groups one after the other, each when Arbor asks for a batch. */
  async step({ batch, groups, metrics }: Step): Promise<GRPOStatus> {
    const arrived = Date.now() / 1000
    for (const samples of batch) {
      const batch_id = await this.#asked()
      this.#posted.add(batch_id)
      await this.job.step([{ batch_id, group: this.#whole(samples), metrics }])
    }
    this.#records.push(this.#record({ batch, groups, metrics }, arrived))
    return this.latest
  }

  async checkpoint(name: string, metadata: Record<string, unknown>): Promise<GRPOStatus> {
    await this.job.saveCheckpoint(name, { metadata })
    const saved = this.job.checkpoints[name] as CheckpointRecord // the status may be one from before
    const status = await this.#status()
    return { ...status, checkpoints: { ...status.checkpoints, [name]: saved } }
  }

  async terminate(): Promise<GRPOStatus> {
    await this.job.terminate()
    return this.#status()
  }

  /** The record of every step that was posted, when Arbor has taken its groups: the next rollouts are then sampled from trained weights. */
  async *records(after: number): AsyncGenerator<StepRecord> {
    for (let record = this.#records[after]; record; record = this.#records[record.step]) {
      if (record.step < this.options.steps) await this.#asked()
      yield record
    }
  }

  /** The lowest batch id that Arbor waits for and that wasn't posted. */
  async #asked(): Promise<number> {
    const { patience = PATIENCE_MS, signal } = this.options
    const end = Date.now() + patience
    for (;;) {
      const { status, pending_batch_ids: pending } = await this.#status()
      const free = pending.filter((id) => !this.#posted.has(id)).sort((a, b) => a - b)
      if (free.length > 0) return free[0]!
      if (status === 'failed' || status === 'cancelled')
        throw new ProtocolError(`Job ${this.id} ended as "${status}". Arbor's log tells why.`, { status: 409 })
      if (Date.now() > end)
        throw new ProtocolError(
          `Arbor asked for no batch in ${Math.round(patience / 1000)} s; after ${this.#posted.size} groups its trainer may have died, which it doesn't tell. Look into its grpo_training.log.`,
          { status: 504 },
        )
      await setTimeout(POLL_MS, undefined, signal ? { signal } : {}).catch((error: Error) => {
        signal?.throwIfAborted()
        throw error
      })
    }
  }

  async #status(): Promise<GRPOStatus> {
    return (this.latest = await this.job.getStatus())
  }

  /** Exactly num_generations samples with Arbor's three fields; a group that lost some is filled up from its beginning, as dspy does. */
  #whole(samples: readonly StepSample[]): StepSample[] {
    const size = Number(this.options.trainKwargs['num_generations'])
    return Array.from({ length: size }, (_, i) => {
      const { messages, completion, reward } = samples[i % samples.length]!
      return { messages, completion, reward }
    })
  }

  /** What Arbor keeps to itself (loss, gradient, entropy, tokens) is NaN. */
  #record({ batch, groups, metrics }: Step, arrived: number): StepRecord {
    const rewards = batch.map((samples) => samples.map(({ reward }) => reward))
    const flat = rewards.flat()
    const scale: ScaleRewards = this.options.trainKwargs['scale_rewards'] ? 'group' : 'none'
    const sizes = rewards.map(({ length }) => length)
    const { advantages, stds, zeroStdShare } = groupAdvantages(flat, sizes, scale)
    const before = this.#lastTime
    this.#lastTime = Date.now() / 1000
    return {
      ...UNKNOWN,
      job_id: this.id,
      step: ++this.#step,
      policy_version: this.#posted.size,
      time: this.#lastTime,
      reward: mean(flat),
      reward_std: mean(stds),
      reward_min: Math.min(...flat),
      reward_max: Math.max(...flat),
      frac_reward_zero_std: zeroStdShare,
      validation_score: metrics['validation_score'] ?? null,
      format_failures: metrics['format_failures'] ?? null,
      learning_rate: Number(this.options.trainKwargs['learning_rate']),
      rows_trained: flat.length,
      rows_total: flat.length,
      seconds_between: arrived - before,
      notes: this.#step === 1 ? ['Loss, gradient, entropy and lengths stay with a real Arbor: report_to shows them.'] : [],
      groups: batch.map((samples, g) => ({
        ...groups[g]!,
        rewards: rewards[g]!,
        advantages: advantages.splice(0, samples.length),
        lengths: samples.map(() => Number.NaN),
        completions: samples.map(({ completion }) => [completion].flat()[0]!.content),
        sources: samples.map(() => 'tokenized' as const),
        truncated: samples.map(() => false),
      })),
    }
  }
}

const UNKNOWN = {
  loss: Number.NaN,
  grad_norm: Number.NaN,
  entropy: Number.NaN,
  kl: null,
  clip_ratio_low: Number.NaN,
  clip_ratio_high: Number.NaN,
  clip_ratio_region: Number.NaN,
  logprob_gap_max: null,
  logprob_gap_mean: null,
  completion_length_mean: Number.NaN,
  completion_length_min: Number.NaN,
  completion_length_max: Number.NaN,
  truncated_share: Number.NaN,
  tokens: Number.NaN,
  tokens_unshared: Number.NaN,
  seconds_train: Number.NaN,
} as const

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length
}
