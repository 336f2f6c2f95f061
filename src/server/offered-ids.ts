// Which batch ids a job waits for. Python's clients post one group under each id that they see when a step's rollouts are done, so as many
// are offered as groups were rolled out: with fewer, groups would queue up in the client and be trained later, under a policy that didn't
// sample them. With more, the client fills up with groups that it posts twice; such a group is known again and not trained twice, and what
// is left in the client's queue is asked for with the next step. So where the number isn't certain, one too many is offered.

import { createHash } from 'node:crypto'
import type { StepSample } from '../protocol'

/** Ids of batches are never used twice in a process: clients remember the ids that they served, across jobs. */
export class BatchIds {
  private next = 0
  take(): number {
    return this.next++
  }
}

/** What Arbor offers, for as long as nobody knows the size of a step. */
const ARBORS_OFFER = 2
/** More groups than that nobody posts at once. */
const MOST_OFFERED = 4096

export class OfferedIds {
  readonly #pending: number[] = []
  readonly #served = new Map<number, string>() // batch id → hash of what was posted for it
  #offered: number
  /** How often each prompt was answered since the client last asked for ids: first questions, and those that want JSON. */
  #plain = new Map<string, number>()
  #json = new Map<string, number>()
  /** Hashes of the groups posted for the step in hand, in order, and of those for the last step before it that had any. */
  #posts: string[] = []
  #before: readonly string[] = []
  /** Groups of earlier steps that wait in the client's queue: it posts them first. */
  #left = 0

  /** @param groupSize null where an id stands for a whole step (groups_per_step) */
  constructor(
    private readonly ids: BatchIds,
    private readonly groupSize: number | null,
  ) {
    this.#offered = groupSize === null ? 1 : ARBORS_OFFER
    this.#fill()
  }

  /** Ascending. */
  list(): number[] {
    return this.#pending.slice(0, this.#offered)
  }

  /** A rollout was sampled. `json` marks a request for JSON: dspy's second question about an answer that it can't read, or its JSONAdapter's only one. */
  sampled(prompt: string, json: boolean): void {
    const counts = json ? this.#json : this.#plain
    counts.set(prompt, (counts.get(prompt) ?? 0) + 1)
  }

  /** A client asks: from now on as many ids are offered as it has groups of the step that was rolled out since it last asked. */
  count(): void {
    const rollouts = this.#plain.size > 0 ? this.#plain : this.#json
    if (this.groupSize !== null && rollouts.size > 0) {
      this.#offered = Math.min(this.#left + groupsIn([...rollouts.values()], this.groupSize), MOST_OFFERED)
      if (this.#posts.length > 0) this.#before = this.#posts // a step of which the client had nothing to post changes nothing in its queue
      this.#posts = []
    }
    this.#fill()
    this.#forget()
  }

  /** What is posted is to be trained: false for what was posted before, under this id or, by a client that fills up, under another. */
  serve(id: number, digest: string): boolean {
    if (this.#served.get(id) === digest) return false
    const again = this.groupSize !== null && (this.#posts.includes(digest) || this.#before.includes(digest))
    this.#served.set(id, digest)
    const at = this.#pending.indexOf(id)
    if (at >= 0) this.#pending.splice(at, 1)
    this.#fill()
    this.#forget() // what was sampled up to here (a validation, say) belongs to no later step
    this.#posts.push(digest)
    if (this.#posts.length === this.#offered) this.#left = leftInQueue(this.#posts.slice(this.#left))
    return !again
  }

  #forget(): void {
    this.#plain = new Map()
    this.#json = new Map()
  }

  #fill(): void {
    while (this.#pending.length < this.#offered) this.#pending.push(this.ids.take())
  }
}

/** A batch is known again by it. Messages that samples share (protocol.ts) are hashed once. */
export function digestOf(batch: readonly (StepSample | readonly StepSample[])[]): string {
  const hash = createHash('sha256')
  let last: unknown = null
  for (const group of batch) {
    const samples = Array.isArray(group) ? (group as readonly StepSample[]) : [group as StepSample]
    for (const { messages, ...rest } of samples) {
      hash.update(JSON.stringify(messages === last ? rest : { messages, ...rest }))
      last = messages
    }
    hash.update('\n')
  }
  return hash.digest('hex')
}

/** The client puts all groups of a step into its queue, again and again until there are enough, and takes out what is asked for. */
function leftInQueue(taken: readonly string[]): number {
  const groups = new Set(taken).size
  return groups === 0 ? 0 : Math.ceil(taken.length / groups) * groups - taken.length
}

/**
 * How many groups of `size` rollouts these are at most, from how often each prompt was answered. A program's first call asks a group's
 * rollouts the same; later calls may ask each its own, so what is left over is counted together, and a started group counts.
 */
export function groupsIn(counts: readonly number[], size: number): number {
  let groups = 0
  let missing = 0
  let others = 0
  for (const count of counts)
    if (count * 2 > size) {
      const whole = Math.max(1, Math.round(count / size))
      groups += whole
      missing += Math.max(0, whole * size - count)
    } else others += count
  return Math.max(1, groups + Math.ceil(Math.max(0, others - missing) / size))
}
