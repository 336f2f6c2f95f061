// Example: a row of data with named fields, some of them inputs. Prediction: what a program answered.

import { OptionError } from '../errors'
import type { Loose } from './infer-types'
import { pyRepr } from './python-text'
import type { UsageByModel } from './usage'

/** The methods of an example; its fields are properties beside them. */
class ExampleRecord {
  readonly #store: Loose
  #inputKeys: ReadonlySet<string> | null = null

  constructor(fields: object = {}) {
    this.#store = fields instanceof ExampleRecord ? { ...fields.#store } : { ...fields }
    for (const key of Object.keys(this.#store)) this.#expose(key)
  }

  /** A field whose name is a method's stays behind `get(name)`. */
  #expose(key: string): void {
    if (key in this) return
    const get = () => this.#store[key]
    const set = (value: unknown) => {
      this.#store[key] = value
    }
    Object.defineProperty(this, key, { get, set, enumerable: true, configurable: true })
  }

  /** Field names; those starting with `dspy_` only when asked for. */
  keys(includeDspy = false): string[] {
    return Object.keys(this.#store).filter((key) => includeDspy || !key.startsWith('dspy_'))
  }

  values(includeDspy = false): Loose[string][] {
    return this.keys(includeDspy).map((key) => this.#store[key])
  }

  items(includeDspy = false): [string, Loose[string]][] {
    return this.keys(includeDspy).map((key) => [key, this.#store[key]])
  }

  /** The number of fields. */
  get size(): number {
    return this.keys().length
  }

  has(key: string): boolean {
    return Object.hasOwn(this.#store, key)
  }

  get(key: string, otherwise?: unknown): Loose[string] {
    return this.has(key) ? this.#store[key] : otherwise
  }

  /** A copy in which the named fields are the inputs, the others labels. */
  withInputs(...keys: string[]): this {
    const copy = this.copy()
    copy.#inputKeys = new Set(keys)
    return copy
  }

  /** Names of the input fields; null before `withInputs`. */
  get inputKeys(): readonly string[] | null {
    return this.#inputKeys && [...this.#inputKeys]
  }

  /** The input fields only. @throws OptionError before `withInputs` */
  inputs(): Example {
    const keys = this.#inputKeys
    if (!keys) {
      throw new OptionError(
        `This example's inputs are not set (fields: ${this.keys().join(', ')}). Say which fields are inputs: example.withInputs('question').`,
      )
    }
    const inputs = this.#pick((key) => keys.has(key))
    inputs.#inputKeys = keys
    return inputs as Example
  }

  /** The fields that are no inputs; those named `dspy_…` are always among them. */
  labels(): Example {
    const shown = new Set(this.inputs().keys())
    return this.#pick((key) => !shown.has(key)) as Example
  }

  #pick(wanted: (key: string) => boolean): ExampleRecord {
    return new ExampleRecord(Object.fromEntries(Object.entries(this.#store).filter(([key]) => wanted(key))))
  }

  /** A shallow copy, fields added or replaced; it forgets which fields are inputs, as in DSPy. */
  copy(changes: object = {}): this {
    return new (this.constructor as new (fields: object) => this)({ ...this.#store, ...changes })
  }

  /** A copy without the named fields. @throws OptionError for a field that isn't there */
  without(...keys: string[]): Example {
    const missing = keys.find((key) => !this.has(key))
    if (missing !== undefined)
      throw new OptionError(`There is no field '${missing}' to leave out; the fields are ${this.keys(true).join(', ')}.`)
    return this.#pick((key) => !keys.includes(key)) as Example
  }

  /** Plain data, nested examples included. */
  toDict(): Loose {
    return plain(this.#store) as Loose
  }

  toJSON(): Loose {
    return this.toDict()
  }

  /** Equal fields; which of them are inputs doesn't count. */
  equals(other: unknown): boolean {
    return other instanceof ExampleRecord && sameValue(this.#store, other.#store)
  }

  toString(): string {
    const keys = this.#inputKeys ? `{${[...this.#inputKeys].map(pyRepr).join(', ') || ''}}` : 'None'
    return `Example(${pyRepr(Object.fromEntries(this.items()))}) (input_keys=${keys})`
  }

  [Symbol.for('nodejs.util.inspect.custom')](): string {
    return this.toString()
  }
}

function plain(value: unknown): unknown {
  if (value instanceof ExampleRecord) return value.toDict()
  if (Array.isArray(value)) return value.map(plain)
  if (typeof value !== 'object' || value === null || Object.getPrototypeOf(value) !== Object.prototype) return value
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, plain(item)]))
}

function sameValue(a: unknown, b: unknown): boolean {
  if (a instanceof ExampleRecord) return a.equals(b)
  if (typeof a !== 'object' || typeof b !== 'object' || a === null || b === null) return Object.is(a, b)
  const [keysA, keysB] = [Object.keys(a), Object.keys(b)]
  if (Array.isArray(a) !== Array.isArray(b) || keysA.length !== keysB.length) return false
  return keysA.every((key) => Object.hasOwn(b, key) && sameValue((a as Loose)[key], (b as Loose)[key]))
}

/** The methods of a prediction. */
class PredictionRecord extends ExampleRecord {
  #completions: Completions | null = null
  #lmUsage: UsageByModel | null = null

  /** A prediction of several completions; its own fields are those of the first. */
  static fromCompletions(completions: readonly object[] | Readonly<Record<string, readonly unknown[]>>): Prediction {
    const columns = Array.isArray(completions)
      ? columnsOf(completions)
      : { ...(completions as Record<string, readonly unknown[]>) }
    const all = new Completions(columns)
    const prediction = new PredictionRecord(all.length > 0 ? all.row(0) : {})
    prediction.#completions = all
    return prediction as Prediction
  }

  /** All completions by field; null for a prediction that was made by hand. */
  get completions(): Completions | null {
    return this.#completions
  }

  /** Tokens by language model, where the setting `trackUsage` is on; else null. */
  get lmUsage(): UsageByModel | null {
    return this.#lmUsage
  }

  setLmUsage(usage: UsageByModel): void {
    this.#lmUsage = usage
  }

  /** The `score` field as a number, so that `Number(p)`, `p < q` and sums work. @throws OptionError without one */
  override valueOf(): number {
    if (!this.has('score')) throw new OptionError("Prediction object does not have a 'score' field to convert to float.")
    return Number(this.get('score'))
  }

  override toString(): string {
    const fields = this.items(true).map(([key, value]) => `${key}=${pyRepr(value)}`)
    const others = (this.#completions?.length ?? 1) - 1
    if (others <= 0) return `Prediction(\n    ${fields.join(',\n    ')}\n)`
    return `Prediction(\n    ${[...fields, 'completions=Completions(...)'].join(',\n    ')}\n) (${others} completions omitted)`
  }
}

function columnsOf(rows: readonly object[]): Record<string, unknown[]> {
  const columns: Record<string, unknown[]> = {}
  for (const row of rows) for (const [key, value] of Object.entries(row)) (columns[key] ??= []).push(value)
  return columns
}

/** Several completions of one call, a list per field. */
export class Completions {
  readonly fields: Readonly<Record<string, readonly unknown[]>>

  constructor(fields: Readonly<Record<string, readonly unknown[]>>) {
    const lengths = Object.values(fields).map((values) => values.length)
    if (new Set(lengths).size > 1) {
      throw new OptionError(
        `All lists must have the same length; completions have ${Object.entries(fields)
          .map(([key, values]) => `${key}: ${values.length}`)
          .join(', ')}.`,
      )
    }
    this.fields = fields
  }

  get length(): number {
    return Object.values(this.fields)[0]?.length ?? 0
  }

  /** The fields of one completion. */
  row(index: number): Loose {
    return Object.fromEntries(Object.entries(this.fields).map(([key, values]) => [key, values[index]]))
  }

  /** One completion as a prediction. @throws OptionError outside 0 … length − 1 */
  at(index: number): Prediction {
    if (index < 0 || index >= this.length) throw new OptionError(`There is no completion ${index}; there are ${this.length}.`)
    return new Prediction(this.row(index))
  }
}

/** A row of data: its fields as properties, and methods beside them. */
export type Example<F = Loose> = ExampleRecord & F
export const Example = ExampleRecord as {
  new <F extends object = Loose>(fields?: F): Example<F>
  readonly prototype: ExampleRecord
}

/** A program's answer: its fields as properties, `completions` and `score` arithmetic beside them. */
export type Prediction<F = Loose> = PredictionRecord & F
export const Prediction = PredictionRecord as {
  new <F extends object = Loose>(fields?: F): Prediction<F>
  readonly prototype: PredictionRecord
  fromCompletions(completions: readonly object[] | Readonly<Record<string, readonly unknown[]>>): Prediction
}

/** Fields of an example, or of plain data, as plain data. */
export function fieldsOf(row: object): Loose {
  return row instanceof ExampleRecord ? Object.fromEntries(row.items(true)) : (row as Loose)
}

/** @throws OptionError for a row that is no example, by the name of its list */
export function checkExamples(rows: readonly unknown[], list: string): void {
  const index = rows.findIndex((row) => !(row instanceof ExampleRecord))
  if (index < 0) return
  throw new OptionError(
    `${list}[${index}] is no dspy.Example but ${(JSON.stringify(rows[index]) ?? String(rows[index])).slice(0, 80)}. Write new dspy.Example({ … }).withInputs('question').`,
  )
}
