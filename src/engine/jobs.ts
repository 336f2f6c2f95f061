// Requests under way: one sequence a seed, one answer when all of them have ended. A request that fails or is aborted takes its own
// sequences along and nobody else's.

import { ArborError } from '../errors'
import type { Completion, GenerateControl, GenerateRequest } from './engine'
import type { Roster } from './roster'
import type { TokenMask } from './sampling'
import { Sequence, type SequenceToken } from './sequence'

export interface JobOptions {
  readonly policyVersion: number
  /** Name of the policy where it has weights of its own. */
  readonly weightSet?: string | null
  readonly control?: GenerateControl
}

/** The completions of one request. */
interface Job {
  readonly control: GenerateControl
  readonly completions: Completion[]
  remaining: number
  resolve(completions: Completion[]): void
  reject(error: unknown): void
}

export class Jobs {
  readonly #jobs = new Map<Sequence, Job>()

  constructor(
    private readonly roster: Roster,
    private readonly counters: { sampledTokens: number },
  ) {}

  /** Whether anybody waits for a token. */
  get busy(): boolean {
    return this.#jobs.size > 0
  }

  /** Names of the weights that somebody needs, the longest here first; null stands for the base's. */
  get weightSets(): ReadonlySet<string | null> {
    return new Set([...this.#jobs.keys()].map(({ weightSet }) => weightSet))
  }

  /** Puts one sequence per seed in line; resolves when all have ended. */
  add(request: GenerateRequest, options: JobOptions): Promise<Completion[]> {
    const { policyVersion, weightSet = null, control = {} } = options
    const kept = own(request)
    const sequences = request.seeds.map((_, i) => new Sequence(kept, i, policyVersion, weightSet))
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
        else this.roster.wait(sequence)
    })
  }

  /** Gives a sequence the token that was sampled for it, and ends it where that was its last. */
  take(sequence: Sequence, token: SequenceToken): void {
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

  /** Ends those whose signal says so: they come back as they are. */
  dropAborted(): void {
    let any = false
    this.#jobs.forEach((job, sequence) => {
      if (!job.control.signal?.aborted) return
      this.#finish(sequence, 'abort')
      any = true
    })
    if (any) this.#dropEnded()
  }

  /** Ends everybody with an error. */
  fail(error: unknown): void {
    for (const [sequence, job] of this.#jobs) {
      this.roster.leave(sequence)
      job.reject(error)
    }
    this.#jobs.clear()
  }

  #finish(sequence: Sequence, reason: Completion['finishReason']): void {
    const job = this.#jobs.get(sequence)!
    job.completions[sequence.index] = sequence.toCompletion(reason)
    this.#end(sequence)
    if (--job.remaining === 0) job.resolve(job.completions)
  }

  #end(sequence: Sequence): void {
    this.roster.leave(sequence)
    this.#jobs.delete(sequence)
  }

  #dropEnded(): void {
    this.roster.keepWaiting((sequence) => this.#jobs.has(sequence))
  }
}

/** A copy that the caller can't change, its sampling of one shape whoever asks: passes read it for hundreds of sequences. */
function own(request: GenerateRequest): GenerateRequest {
  const { temperature, topK, topP, minP, repetitionPenalty } = request.sampling
  return { ...request, prompt: [...request.prompt], sampling: { temperature, topK, topP, minP, repetitionPenalty } }
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
