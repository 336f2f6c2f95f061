// The settings that a call runs under: the language model, the adapter, the trace. Global ones, and scoped ones that travel with async calls.

import { AsyncLocalStorage } from 'node:async_hooks'
import type { AdapterParseError } from '../errors'
import type { Message } from '../protocol'
import type { Adapter } from './adapter'
import type { BaseLM, HistoryEntry, LMOptions, LMOutput } from './base-lm'
import type { Callback } from './callbacks'
import type { Prediction } from './example'
import type { Loose } from './infer-types'
import type { Predict } from './predict'
import type { Retriever } from './retrieve'
import type { StreamSink } from './stream'

/** One call of one predictor: what it saw, what came back, and whether that could be read. */
export interface TraceEntry {
  readonly predictor: Predict
  readonly inputs: Loose
  /** null when the completion held no answer; then `failure` says why. */
  readonly prediction: Prediction | null
  readonly failure: AdapterParseError | null
  /** The adapter that wrote `messages` and read the completions. */
  readonly adapter: Adapter
  readonly messages: readonly Message[]
  /** The raw completions with their ids, in the order of the choices. */
  readonly completions: readonly LMOutput[]
}

export interface Settings {
  readonly lm: BaseLM | null
  /** null: a ChatAdapter. */
  readonly adapter: Adapter | null
  /** Whether an adapter may ask again in another format when a completion can't be read; training asks in the trained format only. */
  readonly adapterFallback: boolean
  /** Filled while it is a list; null: nothing is kept. */
  readonly trace: TraceEntry[] | null
  readonly maxTraceSize: number
  /** How many failing examples an evaluation bears before it stops. */
  readonly maxErrors: number
  /** Examples evaluated at a time. */
  readonly numThreads: number
  /** Sampling values for every call in this context, e.g. its seed; a predictor's own config wins. */
  readonly lmOptions: LMOptions | (() => LMOptions) | null
  /** Told of every language model call that was answered in this context, e.g. to count what a search costs. */
  readonly lmObservers: readonly ((call: HistoryEntry) => void)[]
  /** Put the tokens that a program took into its prediction, as `lmUsage`. */
  readonly trackUsage: boolean
  /** Who watches modules, language models and tools at work. */
  readonly callbacks: readonly Callback[]
  /** The watched call that runs here; set by the library. */
  readonly activeCall: string | null
  /** Where the text of predictors goes as it comes; set by `streamify`. */
  readonly stream: StreamSink | null
  /** Where `Retrieve` looks. */
  readonly rm: Retriever | null
  /** Aborts the calls of this context. */
  readonly signal: AbortSignal | null
  /** Told of things that are not errors, like a missing input. The library itself never prints. */
  readonly onWarning: ((message: string) => void) | null
}

const DEFAULTS: Settings = {
  lm: null,
  adapter: null,
  adapterFallback: true,
  trace: null,
  maxTraceSize: 10_000,
  maxErrors: 10,
  numThreads: 8,
  lmOptions: null,
  lmObservers: [],
  trackUsage: false,
  callbacks: [],
  activeCall: null,
  stream: null,
  rm: null,
  signal: null,
  onWarning: null,
}

let globalSettings: Settings = DEFAULTS
const scoped = new AsyncLocalStorage<Scope>()

/** What a context changes, and the settings that come of it: put together once, and again when the global ones change. */
interface Scope {
  readonly changes: Partial<Settings>
  global: Settings | null
  merged: Settings
}

/** The settings as they are here and now. */
export const settings: Settings = Object.create(
  null,
  Object.fromEntries(
    Object.keys(DEFAULTS).map((key) => [key, { get: () => currentSettings()[key as keyof Settings], enumerable: true }]),
  ),
)

/** A snapshot of the settings in force. */
export function currentSettings(): Settings {
  const scope = scoped.getStore()
  if (!scope) return globalSettings
  if (scope.global !== globalSettings) {
    scope.global = globalSettings
    scope.merged = { ...globalSettings, ...scope.changes }
  }
  return scope.merged
}

/** Sets settings for everything that follows, outside of `context`. */
export function configure(changes: Partial<Settings>): void {
  globalSettings = { ...globalSettings, ...changes }
}

/** Runs `run` under changed settings; what runs at the same time elsewhere sees nothing of it. */
export function context<T>(changes: Partial<Settings>, run: () => T): T {
  return scoped.run({ changes: { ...scoped.getStore()?.changes, ...changes }, global: null, merged: DEFAULTS }, run)
}

/** Runs `run` and answers its result with the trace of every predictor call in it. */
export async function withTrace<T>(run: () => T | Promise<T>): Promise<{ result: T; trace: TraceEntry[] }> {
  const trace: TraceEntry[] = []
  const result = await context({ trace }, run)
  return { result, trace }
}

// ---------------------------------------------------------------- progress

/** Something moved: `evaluate:start`, `evaluate:item`, `evaluate:end`, and the optimizers' own kinds. */
export interface ProgressEvent {
  /** Who and what, like `evaluate:item`. */
  readonly kind: `${string}:${'start' | 'item' | 'end'}`
  /** Ties the events of one activity together. */
  readonly id: string
  readonly title: string
  readonly done: number
  /** 0: not known. */
  readonly total: number
  readonly note?: string
  readonly payload?: unknown
}

export type ProgressObserver = (event: ProgressEvent) => void

let observer: ProgressObserver | null = null
let activities = 0

/** Whoever draws progress registers here; answers the observer before. */
export function setProgressObserver(next: ProgressObserver | null): ProgressObserver | null {
  const previous = observer
  observer = next
  return previous
}

export function reportProgress(event: ProgressEvent): void {
  observer?.(event)
}

/** A new id for an activity. */
export function newActivityId(name: string): string {
  return `${name}-${++activities}`
}
