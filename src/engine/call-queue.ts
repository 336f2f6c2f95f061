// The order of an engine's calls: shared ones overlap each other, an exclusive one waits for all before it and holds up all after it.

export class CallQueue {
  #exclusive: Promise<unknown> = Promise.resolve()
  /** Shared calls since the last exclusive one. */
  #shared = new Set<Promise<unknown>>()

  /** Runs beside other shared calls. */
  shared<Result>(task: () => Promise<Result>): Promise<Result> {
    const result = this.#exclusive.then(task)
    const done: Promise<unknown> = settled(result).then(() => this.#shared.delete(done))
    this.#shared.add(done)
    return result
  }

  /** Runs alone. */
  exclusive<Result>(task: () => Promise<Result>): Promise<Result> {
    const result = Promise.all([this.#exclusive, ...this.#shared]).then(task)
    this.#exclusive = settled(result)
    this.#shared = new Set()
    return result
  }
}

/** Resolves when the call has ended, well or badly; its caller hears of the error, the queue goes on. */
function settled(call: Promise<unknown>): Promise<unknown> {
  return call.then(
    () => undefined,
    () => undefined,
  )
}
