// The saved form of a program in DSPy 3.3.1's JSON: Python loads what is saved here, and the other way round.

import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import { z } from 'zod'
import { OptionError } from '../errors'
import type { BaseLM } from './base-lm'
import { currentSettings } from './context'
import { lmFromState } from './lm-state'
import type { Predict, PredictorState } from './predict'

/** One entry per predictor, by its path. */
export type ProgramState = Record<string, PredictorState>

/** What DSPy writes: a program's entries by path; of a bare predictor its own entry. */
export type SavedState = ProgramState | PredictorState

export interface LoadOptions {
  /** Predictors keep the language models they have; otherwise they take over the saved ones, none included. */
  readonly keepLm?: boolean
  /** Take over the saved `api_base` too. A file of unknown origin could send prompts and keys anywhere: without this it is left out. */
  readonly allowUnsafeLmState?: boolean
}

type NamedPredictors = readonly [string, Predict][]

/** The DSPy whose format this is. */
const DSPY_VERSION = '3.3.1'
const BARE = 'self'

export function savedState(predictors: NamedPredictors): SavedState {
  const state = Object.fromEntries(predictors.map(([name, predictor]) => [name, predictor.dumpOwnState()]))
  return isBare(predictors) ? state[BARE]! : state
}

/**
 * Gives every predictor its saved demos, instructions and language model.
 * @throws OptionError when the state is another program's or no state at all; then nothing has changed
 */
export function applyState(predictors: NamedPredictors, state: unknown, options: LoadOptions = {}): void {
  const entries = checkedEntries(predictors, state)
  const lms = entries.map(([, saved]) => (options.keepLm ? undefined : loadLm(saved, options)))
  for (const [i, [predictor, saved]] of entries.entries()) predictor.loadOwnState(saved, lms[i])
}

/** Writes the state to a `.json` file, whole or not at all. */
export async function saveState(path: string, state: SavedState): Promise<void> {
  checkPath(path)
  // Python compares each version that is named here with its own, so only DSPy's may be
  const text = JSON.stringify({ ...state, metadata: { dependency_versions: { dspy: DSPY_VERSION } } }, null, 2)
  const unfinished = `${path}.${process.pid}.tmp`
  await mkdir(dirname(path), { recursive: true })
  try {
    await writeFile(unfinished, `${text}\n`)
    await rename(unfinished, path)
  } finally {
    await rm(unfinished, { force: true })
  }
}

/** Reads what `saveState` or Python's `program.save` wrote. */
export async function readState(path: string): Promise<unknown> {
  checkPath(path)
  const text = await readFile(path, 'utf8').catch((cause: Error) => {
    throw new OptionError(`The saved program ${path} can't be read: ${cause.message}.`, { cause })
  })
  try {
    return JSON.parse(text) as unknown
  } catch (cause) {
    throw new OptionError(`${path} is no JSON: ${(cause as Error).message}. Save programs with program.save('….json').`, {
      cause,
    })
  }
}

function checkPath(path: string): void {
  if (path.endsWith('.json')) return
  const why = path.endsWith('.pkl') ? "Python's pickles can't be read or written here" : 'a program is saved as one JSON file'
  throw new OptionError(`The path '${path}' must end with .json: ${why}.`)
}

// ---------------------------------------------------------------- checks

const PredictorSchema = z.looseObject({
  traces: z.array(z.unknown()).default([]),
  train: z.array(z.unknown()).default([]),
  demos: z.array(z.record(z.string(), z.unknown())),
  signature: z.looseObject({
    instructions: z.string(),
    fields: z.array(z.looseObject({ prefix: z.string(), description: z.string() })),
  }),
  lm: z.record(z.string(), z.unknown()).nullish(),
})

function isBare(predictors: NamedPredictors): boolean {
  return predictors.length === 1 && predictors[0]![0] === BARE
}

function checkedEntries(predictors: NamedPredictors, state: unknown): [Predict, PredictorState][] {
  if (typeof state !== 'object' || state === null || Array.isArray(state)) {
    throw new OptionError(`A saved state is an object with an entry for each predictor, but this is ${JSON.stringify(state)}.`)
  }
  const { metadata, ...rest } = state as Record<string, unknown>
  checkVersion(metadata)
  const saved = isBare(predictors) && 'signature' in rest ? { [BARE]: rest } : rest
  checkNames(
    predictors.map(([name]) => name),
    Object.keys(saved),
  )
  return predictors.map(([name, predictor]) => [predictor, checkedEntry(name, predictor, saved[name])])
}

function checkNames(wanted: readonly string[], found: readonly string[]): void {
  const list = (names: readonly string[]) => names.map((name) => `'${name}'`).join(', ') || 'none'
  const missing = wanted.filter((name) => !found.includes(name))
  const extra = found.filter((name) => !wanted.includes(name))
  if (missing.length === 0 && extra.length === 0) return
  const faults = [
    ...(missing.length > 0 ? [`it has no entry ${list(missing)}`] : []),
    ...(extra.length > 0 ? [`this program has no predictor ${list(extra)}`] : []),
  ]
  throw new OptionError(
    `The saved state is another program's: ${faults.join(', and ')}. Saved: ${list(found)}; this program: ${list(wanted)}.`,
  )
}

function checkedEntry(name: string, predictor: Predict, entry: unknown): PredictorState {
  const parsed = PredictorSchema.safeParse(entry)
  if (!parsed.success) {
    const { path, message } = parsed.error.issues[0]!
    throw new OptionError(`The saved state of '${name}' is damaged at ${path.join('.') || 'its top'}: ${message}.`)
  }
  const { signature } = predictor
  const { fields } = parsed.data.signature
  if (fields.length !== signature.fields.length) {
    throw new OptionError(
      `The saved state is another program's: '${name}' has ${fields.length} fields there (${fields.map((field) => field.prefix).join(' ')}), ` +
        `and '${signature.signature}' has ${signature.fields.length}.`,
    )
  }
  return { ...parsed.data, lm: parsed.data.lm ?? null }
}

function checkVersion(metadata: unknown): void {
  const saved = (metadata as { dependency_versions?: { dspy?: string } } | undefined)?.dependency_versions?.dspy
  if (saved === undefined || saved === DSPY_VERSION) return
  currentSettings().onWarning?.(`The program was saved by DSPy ${saved}; this is DSPy ${DSPY_VERSION}'s format.`)
}

function loadLm({ lm }: PredictorState, options: LoadOptions): BaseLM | null {
  return lm ? lmFromState(lm, { allowUnsafe: options.allowUnsafeLmState ?? false }) : null
}
