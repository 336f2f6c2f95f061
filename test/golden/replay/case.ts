// The words of the replayer: a case, what a replay answers, and how two values are compared.

/** One case of a vector file. `kind` picks its replay; the other fields belong to the kind. */
export interface GoldenCase {
  readonly id: string
  readonly kind: string
  readonly [field: string]: unknown
}

/** The first place where a result parts from the vector. */
export interface Difference {
  readonly path: string
  readonly expected: unknown
  readonly got: unknown
}

/** null: the case agrees. */
export type Outcome = Difference | null | `skip: ${string}`
export type Replay = (testCase: GoldenCase) => Outcome | Promise<Outcome>

export interface CompareOptions {
  /** Largest |a - b| / max(1, |expected|) of two numbers; 0 (the default) asks for equality. NaN equals null. */
  readonly tolerance?: number
  /** Where the two values stand in the case; starts every path. */
  readonly path?: string
}

/** First difference of two JSON-like values; key order is free, array order isn't, an absent key equals `undefined` only. */
export function firstDifference(expected: unknown, got: unknown, options: CompareOptions = {}): Difference | null {
  const path = options.path ?? ''
  if (Array.isArray(expected) && Array.isArray(got)) {
    if (expected.length !== got.length) return { path: `${path}.length`, expected: expected.length, got: got.length }
    return firstOf(expected.keys(), (i) => firstDifference(expected[i], got[i], { ...options, path: `${path}[${i}]` }))
  }
  if (isRecord(expected) && isRecord(got)) {
    const keys = new Set([...Object.keys(expected), ...Object.keys(got)])
    return firstOf(keys, (key) => firstDifference(expected[key], got[key], { ...options, path: path ? `${path}.${key}` : key }))
  }
  return sameScalar(expected, got, options.tolerance ?? 0) ? null : { path, expected, got }
}

/** The first difference that `compare` answers over `items`. */
export function firstOf<T>(items: Iterable<T>, compare: (item: T) => Difference | null): Difference | null {
  for (const item of items) {
    const difference = compare(item)
    if (difference) return difference
  }
  return null
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function sameScalar(expected: unknown, got: unknown, tolerance: number): boolean {
  if (typeof got === 'number' && Number.isNaN(got)) return expected === null || Number.isNaN(expected)
  if (typeof expected !== 'number' || typeof got !== 'number') return expected === got
  return expected === got || Math.abs(expected - got) <= tolerance * Math.max(1, Math.abs(expected))
}
