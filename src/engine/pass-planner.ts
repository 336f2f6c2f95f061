// Which rows the next pass computes: the prompts of newcomers, or one more token of everybody who runs, or, where the device works
// beside us, one more still before the last is known. All three fill the same plan, so a plan lasts until the next is asked for.

import { type BatchLimits, BatchPlan } from './batch-plan'
import type { Roster } from './roster'
import type { Sequence } from './sequence'

/** Slots that a sequence sets aside at once where the device runs ahead: as long a pass needn't be told what it sees. */
const RESERVED = 64

export class PassPlanner {
  readonly #plan: BatchPlan

  constructor(
    private readonly roster: Roster,
    private readonly limits: BatchLimits,
    private readonly device: { readonly runsAhead?: boolean },
  ) {
    this.#plan = new BatchPlan(limits)
  }

  /** The next tokens of prompts, in order of arrival, as far as rows and slots allow. */
  prompts(weightSet: string | null): BatchPlan | null {
    const plan = this.#plan
    const { running } = this.roster
    plan.clear()
    for (const sequence of this.roster.runningOver(weightSet)) // a preempted one has left the set by then
      if (sequence.prefilling && plan.room > 0 && running.has(sequence)) this.#prefill(sequence)
    while (plan.room > 0 && running.size < this.limits.sequences) {
      const sequence = this.roster.admit(weightSet)
      if (!sequence) break
      this.#prefill(sequence)
    }
    return plan.empty ? null : plan.build()
  }

  /** Puts the next part of a sequence's tokens into the plan. What others computed since, or compute in this very pass, is shared. */
  #prefill(sequence: Sequence): void {
    const plan = this.#plan
    const { roster } = this
    const { tokens, slots } = sequence
    roster.descend(sequence)
    const from = slots.length
    const count = Math.min(tokens.length - from, plan.room)
    if (count > 0) {
      if (!roster.makeRoom(sequence, count)) return
      sequence.hold(roster.cache.extend(sequence.node!, tokens, count)!)
      plan.compute(sequence, from, slots.length)
    }
    if (slots.length < tokens.length) return
    // A prompt that is wholly cached still needs its last row's hidden state: that row is computed again, to the same bits.
    if (!plan.computes(slots.last)) {
      if (plan.room === 0) return
      plan.compute(sequence, slots.length - 1, slots.length)
      if (sequence.completion.length === 0) sequence.cachedTokens--
    }
    plan.sample(sequence)
  }

  /** One row for each running sequence: its last token. */
  decode(weightSet: string | null): BatchPlan | null {
    const { roster } = this
    this.#beginDecode({ ahead: false })
    for (const sequence of roster.runningOver(weightSet))
      if (roster.running.has(sequence) && roster.makeRoom(sequence, 1)) this.#decode(sequence)
    return this.#plan.empty ? null : this.#plan.build()
  }

  /**
   * One more row for each sequence of a pass that is under way and may go on, its token still unknown; null when the host has to decide first. A sequence
   * that turns out to have ended has one row too many, which nobody reads.
   */
  decodeAhead(underWay: readonly Sequence[], weightSet: string | null): BatchPlan | null {
    const { running, waiting, cache } = this.roster
    if (!this.device.runsAhead || waiting > 0) return null
    if (underWay.some(({ watched }) => watched)) return null // that pass's own samples aren't even enqueued yet
    let going = 0
    for (const sequence of running) {
      if (!sequence.wantsMore) continue
      if (sequence.weightSet !== weightSet || !sequence.runsAhead || sequence.inFlight === 0) return null
      going++
    }
    if (going === 0 || going > cache.available) return null
    this.#beginDecode({ ahead: true })
    for (const sequence of running) if (sequence.wantsMore) this.#decode(sequence)
    return this.#plan.build()
  }

  #beginDecode({ ahead }: { ahead: boolean }): void {
    const plan = this.#plan
    plan.clear()
    plan.decode = true
    plan.ahead = ahead
    plan.rounds = this.device.runsAhead ?? false // there a recorded pass is worth more than the rows that make up its size
  }

  /** Puts a row for the sequence's newest token into the plan. There is a slot for it. */
  #decode(sequence: Sequence): void {
    const { cache } = this.roster
    const { slots, reserve } = sequence
    if (this.device.runsAhead && reserve.length === 0) cache.reserve(reserve, Math.min(RESERVED, sequence.tokensLeft))
    slots.push(cache.next(reserve))
    this.#plan.decodes(sequence)
  }
}
