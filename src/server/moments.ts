// Requests that a client makes at one moment say so, and wait for each other: the first is read milliseconds before the last, and what
// begins together is decoded together, in as many passes as one of them takes.

/** Whoever is missing by then is not waited for: a request may be lost, or its client. */
const LONGEST_MS = 500
const FORM = /^([\w-]{1,64})\/(\d{1,4})$/

interface Moment {
  missing: number
  readonly all: Promise<void>
  readonly begin: () => void
}

export class Moments {
  readonly #open = new Map<string, Moment>()

  constructor(private readonly longestMs = LONGEST_MS) {}

  /** A request has come, be it a good one or not. Resolves when all of its moment have; at once for one that is alone. */
  arrived(header: string | null): Promise<void> {
    const [, name, count] = FORM.exec(header ?? '') ?? []
    if (name === undefined) return Promise.resolve()
    const moment = this.#open.get(name) ?? this.#opened(name, Number(count))
    if (--moment.missing <= 0) moment.begin()
    return moment.all
  }

  #opened(name: string, missing: number): Moment {
    let resolve = () => {}
    const all = new Promise<void>((done) => (resolve = done))
    const begin = () => {
      clearTimeout(late)
      this.#open.delete(name)
      resolve()
    }
    const late = setTimeout(begin, this.longestMs)
    const moment = { missing, all, begin }
    this.#open.set(name, moment)
    return moment
  }
}
