// The numbers of one pass as they lie in memory: all in one array, taken once at full size and refilled, close together, so that what is
// uploaded is no more than they are. What they say is decided in batch-plan.ts; on the device they lie at the same places (pass-inputs.ts).

/** A pass at its largest. */
export interface PlanSize {
  /** Rows of one forward pass. */
  readonly tokens: number
  /** Sequences in one forward pass. */
  readonly sequences: number
}

/** Most segments a sequence can take part in making: its rows in two runs around one that another's sample reads. */
export const SEGMENTS = 3

/** Of the `sample` op, for each sample. */
export const FLOATS = 6
export const INTS = 4

/** Where the parts of a plan of so many rows and samples begin in its one array; the segments come last. */
export type PlanPlaces = ReturnType<typeof planPlaces>

export function planPlaces(rows: number, samples: number) {
  const ints = line(FLOATS * samples)
  const sampleRows = ints + line(INTS * samples)
  const ids = sampleRows + line(samples)
  const positions = ids + line(rows)
  const slots = positions + line(rows)
  return { floats: 0, ints, sampleRows, ids, positions, slots, segments: slots + line(rows) }
}

/** Numbers of a plan at its largest. */
export function planNumbers({ tokens, sequences }: PlanSize): number {
  return planPlaces(tokens, sequences).segments + 4 * SEGMENTS * sequences
}

/** Each part begins on a cache line. */
function line(numbers: number): number {
  return Math.ceil(numbers / 16) * 16
}

/** Views of a plan's numbers, named, for the rows and samples of the pass at hand. */
export class PlanArrays {
  readonly #all: Int32Array
  #used: Int32Array | null = null
  #places: PlanPlaces & { readonly rows: number; readonly samples: number } = { ...planPlaces(0, 0), rows: 0, samples: 0 }
  ids!: Int32Array // [rows]
  positions!: Int32Array // [rows]
  slots!: Int32Array // [rows]
  floats!: Float32Array // [samples, FLOATS] and
  ints!: Int32Array // [samples, INTS], for whoever samples to fill
  sampleRows!: Int32Array // [samples]: the row whose hidden state decides a sample, counted from `liveStart`. Two may read one row.
  segments!: Int32Array // [segmentCount, 4]: rowStart, rowCount, contextStart, contextLength
  segmentCount = 0

  constructor(size: PlanSize) {
    this.#all = new Int32Array(planNumbers(size))
    this.place(0, 0)
  }

  /** As many tokens are sampled, those that nobody asked for included. */
  get samples(): number {
    return this.#places.samples
  }

  get places(): PlanPlaces {
    return this.#places
  }

  /** All of the above up to the last segment, as `places` says. */
  get used(): Int32Array {
    const end = this.#places.segments + 4 * this.segmentCount
    if (this.#used?.length !== end) this.#used = this.#all.subarray(0, end)
    return this.#used
  }

  /** Views of the one array, those of the pass before where it was as large. */
  protected place(rows: number, samples: number): void {
    if (this.ids !== undefined && rows === this.#places.rows && samples === this.#places.samples) return
    const places = planPlaces(rows, samples)
    this.#places = { ...places, rows, samples }
    this.ids = this.#all.subarray(places.ids, places.ids + rows)
    this.positions = this.#all.subarray(places.positions, places.positions + rows)
    this.slots = this.#all.subarray(places.slots, places.slots + rows)
    this.floats = new Float32Array(this.#all.buffer, 4 * places.floats, FLOATS * samples)
    this.ints = this.#all.subarray(places.ints, places.ints + INTS * samples)
    this.sampleRows = this.#all.subarray(places.sampleRows, places.sampleRows + samples)
    this.segments = this.#all.subarray(places.segments)
  }
}
