// One completion on its way: its tokens so far, the slots that hold their keys and values, and what was recorded of each.

import type { Completion, GenerateRequest, SamplingParams } from './engine'
import type { PrefixNode } from './kv-cache'
import { type SampledToken, type TokenMask, uniform } from './sampling'
import { SlotList } from './slot-list'

export interface TokenAlternative {
  readonly token: number
  readonly logprob: number
}

/** What the device says of one new token. */
export interface SequenceToken extends SampledToken {
  readonly topLogprobs?: readonly TokenAlternative[]
}

export class Sequence {
  /** The request's: one list with its other sequences. */
  readonly prompt: readonly number[]
  readonly completion: number[] = []
  /** Slot of each token whose keys and values are computed, in order; as long as they, so at most `tokens.length`. */
  readonly slots = new SlotList()
  /** Slots set aside for its next tokens, the last one first. */
  readonly reserve: number[] = []
  /** Where its slots, those set aside included, lie in the list of contexts (contexts.ts). */
  readonly context = { generation: -1, start: 0, length: 0 }
  /** The deepest node of the prefix tree this sequence holds, whose path the first of `slots` are; null while it waits. */
  node: PrefixNode | null = null
  /** Some of `tokens` other than the last are not computed yet. */
  prefilling = true
  /** Tokens that the device was asked to sample and that have not arrived: it may be a step ahead of us. */
  inFlight = 0
  /** Its place among the samples of the latest pass that it is in. */
  place = 0
  /** Prompt tokens it did not have to compute, counted until its first sample. */
  cachedTokens = 0
  /** The tokens that may come next, where something constrains them. */
  allowed: (() => Promise<TokenMask | null>) | null = null
  /** What `allowed` failed with: its request has to hear of it. */
  failure: { readonly error: unknown } | null = null
  readonly #logprobs: number[] = []
  readonly #plainLogprobs: number[] = []
  readonly #topLogprobs: (readonly TokenAlternative[])[] = []
  readonly #seen: Set<number> | null
  /** Prompt and completion, where somebody asked for both. */
  #whole: readonly number[] = []
  // Of the request, in places of our own: requests come in many shapes, and hundreds of sequences are asked for these at every step.
  readonly policy: string | null
  readonly sampling: SamplingParams
  readonly topLogprobs: number
  readonly #seed: number
  readonly #maxNewTokens: number
  readonly #stopTokenIds: readonly number[]

  /** @param request stays as it is for as long as the sequence lives: a step makes hundreds of sequences, eight of each request. */
  constructor(
    request: GenerateRequest,
    readonly index: number,
    readonly policyVersion: number,
    /** Name of the weights it runs over where they are not the base's; sequences of different ones can't share a pass. */
    readonly weightSet: string | null = null,
  ) {
    this.prompt = request.prompt
    this.policy = request.policy
    this.sampling = request.sampling
    this.topLogprobs = request.topLogprobs ?? 0
    this.#seed = request.seeds[index]!
    this.#maxNewTokens = request.maxNewTokens
    this.#stopTokenIds = request.stopTokenIds
    this.#seen = request.sampling.repetitionPenalty === 1 ? null : new Set(this.prompt)
  }

  /** Prompt, then completion, as a pass over prompts wants them: the second only where it gave way and comes back. */
  get tokens(): readonly number[] {
    const { prompt, completion } = this
    if (completion.length === 0) return prompt
    if (this.#whole.length !== prompt.length + completion.length) this.#whole = [...prompt, ...completion]
    return this.#whole
  }

  /** The token at a place of `tokens`. */
  token(place: number): number {
    const { prompt, completion } = this
    return place < prompt.length ? prompt[place]! : completion[place - prompt.length]!
  }

  /** Takes over a node of the prefix tree, to which its tokens lead, instead of the one it held. */
  hold(node: PrefixNode): void {
    this.node = node
    this.slots.shared = node.path
  }

  /** The random number of the next token: of seed and position alone, so never of what else runs. */
  get uniform(): number {
    return uniform(this.#seed, this.completion.length + this.inFlight)
  }

  /** Distinct tokens of prompt and completion, which the repetition penalty applies to; empty without one. */
  get history(): ReadonlySet<number> {
    return this.#seen ?? NO_TOKENS
  }

  /** Whether tokens after those in flight are wanted, as far as their number decides. */
  get wantsMore(): boolean {
    return this.tokensLeft > 0
  }

  /** Tokens that may still follow those in flight. */
  get tokensLeft(): number {
    return this.#maxNewTokens - this.completion.length - this.inFlight
  }

  /** Whether the host has a part in each sample: it reads the logits, or says which tokens may come. */
  get watched(): boolean {
    return this.topLogprobs > 0 || this.allowed !== null
  }

  /** Whether the device can go on without us: nothing of the next sample hangs on tokens that we have not seen. */
  get runsAhead(): boolean {
    return !this.prefilling && this.#seen === null && !this.watched
  }

  append(sampled: SequenceToken): void {
    this.completion.push(sampled.token)
    this.#seen?.add(sampled.token)
    this.#logprobs.push(sampled.logprob)
    this.#plainLogprobs.push(sampled.plainLogprob)
    if (this.topLogprobs > 0) this.#topLogprobs.push(sampled.topLogprobs ?? [])
  }

  /** Whether the last token ends the completion, and why. */
  get ended(): 'stop' | 'length' | null {
    const { length } = this.completion
    if (length > 0 && this.#stopTokenIds.includes(this.completion[length - 1]!)) return 'stop'
    return length >= this.#maxNewTokens ? 'length' : null
  }

  toCompletion(finishReason: Completion['finishReason']): Completion {
    return {
      tokens: this.completion,
      logprobs: this.#logprobs,
      plainLogprobs: this.#plainLogprobs,
      ...(this.topLogprobs > 0 ? { topLogprobs: this.#topLogprobs } : {}),
      finishReason,
      policyVersion: this.policyVersion,
      cachedTokens: this.cachedTokens,
    }
  }
}

const NO_TOKENS: ReadonlySet<number> = new Set()
