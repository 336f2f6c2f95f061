// Which batch ids a job waits for. Python's clients post one group under each id that they see when a step's rollouts are done, so as many
// are offered as groups were rolled out: with fewer, groups would queue up in the client and be trained later, under a policy that didn't
// sample them; with more, it fills up with groups that it posts twice.

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

  /** A client asks: from now on as many ids are offered as groups were rolled out since it last asked. */
  count(): void {
    const rollouts = this.#plain.size > 0 ? this.#plain : this.#json
    if (this.groupSize !== null && rollouts.size > 0)
      this.#offered = Math.min(groupsIn([...rollouts.values()], this.groupSize), MOST_OFFERED)
    this.#fill()
    this.#forget()
  }

  /** What was posted under this id before; null for one that is new. */
  posted(id: number): string | null {
    return this.#served.get(id) ?? null
  }

  serve(id: number, digest: string): void {
    this.#served.set(id, digest)
    const at = this.#pending.indexOf(id)
    if (at >= 0) this.#pending.splice(at, 1)
    this.#fill()
    this.#forget() // what was sampled up to here (a validation, say) belongs to no later step
  }

  #forget(): void {
    this.#plain = new Map()
    this.#json = new Map()
  }

  #fill(): void {
    while (this.#pending.length < this.#offered) this.#pending.push(this.ids.take())
  }
}

/**
 * How many groups of `size` rollouts these are, from how often each prompt was answered. A program's first call asks a group's rollouts the
 * same; later calls may ask each its own, so what is left over is counted together. A rollout or two that got lost don't change the number.
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
  return Math.max(1, groups + Math.floor(Math.max(0, others - missing) / size))
}
