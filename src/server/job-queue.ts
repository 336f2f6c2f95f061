// Work of one job, done in order, one piece at a time.

export class JobQueue {
  private tail: Promise<void> = Promise.resolve()

  /** Runs `work` after everything queued before; its error reaches the caller and leaves the queue alive. */
  run<T>(work: () => Promise<T>): Promise<T> {
    const result = this.tail.then(work)
    this.tail = result.then(
      () => {},
      () => {},
    )
    return result
  }

  /** Resolves when everything queued so far is done. */
  idle(): Promise<void> {
    return this.tail
  }
}
