// A module is a program: predictors and other modules as attributes, and `forward`, which calls them.

import { OptionError } from '../errors'
import type { BaseLM } from './base-lm'
import { watched } from './callbacks'
import { currentSettings } from './context'
import type { Prediction } from './example'
import type { Predict } from './predict'
import { applyState, type LoadOptions, readState, type SavedState, savedState, saveState } from './program-state'
import { withUsage } from './usage'

/**
 * Base of all programs.
 * @example
 * class SimpleQA extends dspy.Module {
 *   answer = new dspy.ChainOfThought('question -> answer')
 *   forward({ question }: { question: string }) { return this.answer.call({ question }) }
 * }
 */
export abstract class Module {
  /** Set by optimizers: as a part of another program this one is finished, and its predictors are left alone. */
  compiled = false

  /** What the program does. Call `call`, which this is for. */
  abstract forward(inputs: never, options?: never): unknown

  /** Runs the program. */
  async call(...args: Parameters<this['forward']>): Promise<Awaited<ReturnType<this['forward']>>> {
    const forward = this.forward as (...args: unknown[]) => unknown
    type Result = Awaited<ReturnType<this['forward']>>
    const run = async (): Promise<Result> => (await forward.apply(this, args)) as Result
    const { callbacks, trackUsage } = currentSettings()
    if (callbacks.length === 0 && !trackUsage) return run()
    return watched('Module', { instance: this, inputs: args[0] }, trackUsage ? () => withUsage(run) : run)
  }

  /**
   * Predictors with their paths, in attribute order: `answer.predict`, `many[0]`, `table['x']`. Lists and records are looked into one
   * level deep; a predictor that occurs twice is listed once; modules that are `compiled` are passed over.
   */
  namedPredictors(): [string, Predict][] {
    const found = new Map<Predict, string>()
    for (const [name, predictor] of this.ownPredictors()) if (!found.has(predictor)) found.set(predictor, name)
    return [...found].map(([predictor, name]) => [name, predictor])
  }

  predictors(): Predict[] {
    return this.namedPredictors().map(([, predictor]) => predictor)
  }

  /** Every predictor under this module, repeated ones included. A predictor answers itself as `self`. */
  protected ownPredictors(): [string, Predict][] {
    return Object.entries(this).flatMap(([name, value]) => {
      if (value instanceof Module) return value.predictorsAs(name)
      if (Array.isArray(value))
        return value.flatMap((item, i) => (item instanceof Module ? item.predictorsAs(`${name}[${i}]`) : []))
      if (!isPlainRecord(value)) return []
      return Object.entries(value).flatMap(([key, item]) =>
        item instanceof Module ? item.predictorsAs(`${name}['${key}']`) : [],
      )
    })
  }

  /** The predictors of this module where it is the attribute `path` of another. */
  protected predictorsAs(path: string): [string, Predict][] {
    if (this.compiled) return []
    return this.namedPredictors().map(([name, predictor]) => [`${path}.${name}`, predictor])
  }

  /**
   * This module and every module under it, nearest first: `self`, `self.first`, `self.many[1]`, `self.table[x]`. Lists and records are
   * looked into at any depth, and a module is listed once.
   */
  namedSubModules(): [string, Module][] {
    const found: [string, Module][] = []
    const queue: [string, unknown][] = [['self', this]]
    const seen = new Set<unknown>([this])
    for (let next = queue.shift(); next; next = queue.shift()) {
      const [path, value] = next
      if (value instanceof Module) found.push([path, value])
      for (const [name, part] of partsOf(value)) {
        if (typeof part !== 'object' || part === null || seen.has(part)) continue
        seen.add(part)
        queue.push([path + name, part])
      }
    }
    return found
  }

  /** Gives every predictor this language model. */
  setLm(lm: BaseLM | null): void {
    for (const predictor of this.predictors()) predictor.lm = lm
  }

  /** The one language model of all predictors; null when they take the configured one. @throws OptionError when they differ */
  getLm(): BaseLM | null {
    const lms = new Set(this.predictors().map((predictor) => predictor.lm))
    if (lms.size > 1)
      throw new OptionError('Multiple LMs are being used in the module. There is no unique LM to return; use setLm first.')
    return [...lms][0] ?? null
  }

  /** A copy with predictors, lists and records of its own; language models, signatures and functions are shared. */
  deepcopy(): this {
    return cloneValue(this, new Map()) as this
  }

  /** A copy without demos and language models. */
  resetCopy(): this {
    const copy = this.deepcopy()
    for (const predictor of copy.predictors()) predictor.reset()
    return copy
  }

  /** Demos, instructions and language model of every predictor by its path, as DSPy saves them; a bare predictor's own are on top. */
  dumpState(): SavedState {
    return savedState(this.namedPredictors())
  }

  /** Takes over a saved state. @throws OptionError when it is another program's; then nothing is changed */
  loadState(state: object, options: LoadOptions = {}): this {
    applyState(this.namedPredictors(), state, options)
    return this
  }

  /** Writes the state to a `.json` file, which Python's `program.load` reads too. */
  async save(path: string): Promise<void> {
    await saveState(path, this.dumpState())
  }

  /** Reads what `save` wrote, here or in Python. The program has to be made first; its state comes from the file. */
  async load(path: string, options: LoadOptions = {}): Promise<this> {
    return this.loadState((await readState(path)) as object, options)
  }

  /** What a notebook and `console.log` show: what each predictor is told, not how it is made. */
  [Symbol.for('nodejs.util.inspect.custom')](): string {
    const lines = this.namedPredictors().map(([name, { signature, demos }]) => {
      const count = demos.length === 1 ? '1 demo' : `${demos.length} demos`
      const told = signature.instructions.split('\n').map((line) => `    ${line}`)
      return [`  ${name}: ${signature.signature} (${count})`, ...told].join('\n')
    })
    return [this.constructor.name, ...lines].join('\n')
  }

  toString(): string {
    return this.namedPredictors()
      .map(([name, predictor]) => `${name} = ${predictor.signature}`)
      .join('\n')
  }
}

/** A program that answers with a prediction: what optimizers and Evaluate take. */
export type Program = Module & { forward(inputs: never): Prediction | Promise<Prediction> }

/** What a value is made of, with the path from it. */
function partsOf(value: unknown): [string, unknown][] {
  if (value instanceof Module) return Object.entries(value).map(([name, part]) => [`.${name}`, part])
  if (Array.isArray(value) || isPlainRecord(value)) return Object.entries(value).map(([key, part]) => [`[${key}]`, part])
  return []
}

function isPlainRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && Object.getPrototypeOf(value) === Object.prototype
}

function cloneValue(value: unknown, done: Map<unknown, unknown>): unknown {
  if (done.has(value)) return done.get(value)
  if (Array.isArray(value)) {
    const copy: unknown[] = []
    done.set(value, copy)
    for (const item of value) copy.push(cloneValue(item, done))
    return copy
  }
  if (!(value instanceof Module) && !isPlainRecord(value)) return value
  const copy = Object.create(Object.getPrototypeOf(value)) as Record<string, unknown>
  done.set(value, copy)
  for (const [key, item] of Object.entries(value)) copy[key] = cloneValue(item, done)
  return copy
}
