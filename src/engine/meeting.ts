// A point that several reach, each with something, before any goes on.

export class Meeting<Given, Taken> {
  readonly #given = new Map<number, Given>()
  readonly #ended: Promise<readonly Taken[]>
  #resolve!: (taken: readonly Taken[]) => void
  #reject!: (error: unknown) => void

  /** `conclude` makes of what they bring, in their order, what each takes away. */
  constructor(
    private readonly members: number,
    private readonly conclude: (given: readonly Given[]) => readonly Taken[] | Promise<readonly Taken[]>,
  ) {
    this.#ended = new Promise((resolve, reject) => {
      this.#resolve = resolve
      this.#reject = reject
    })
    this.#ended.catch(() => {}) // perhaps nobody came
  }

  /** Waits for all others. Rejects when one of them fails, or `conclude` does. */
  async arrive(member: number, given: Given): Promise<Taken> {
    this.#given.set(member, given)
    if (this.#given.size === this.members) void this.#conclude()
    return (await this.#ended)[member]!
  }

  /** Somebody won't come: those who wait, and those who come yet, hear this. */
  fail(error: unknown): void {
    this.#reject(error)
  }

  async #conclude(): Promise<void> {
    const given = Array.from({ length: this.members }, (_, member) => this.#given.get(member)!)
    try {
      this.#resolve(await this.conclude(given))
    } catch (error) {
      this.#reject(error)
    }
  }
}
