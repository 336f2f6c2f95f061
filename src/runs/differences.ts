// Options side by side: what differs between runs, what a run changed.

import { HyperparametersSchema, TrainerConfigSchema } from '../protocol'
import type { StoredRun } from './stored-run'

/** Dotted names of nested options, with their values in one line. */
export type Settings = Readonly<Record<string, string>>

export function settingsOf(run: StoredRun): Settings {
  return flat({ model: run.model, ...run.options })
}

/** The options that runs don't share, a value for each run; '' where a run has none. */
export function differences(runs: readonly StoredRun[]): Record<string, string[]> {
  const all = runs.map(settingsOf)
  const names = [...new Set(all.flatMap(Object.keys))]
  const rows = names.map((name) => [name, all.map((settings) => settings[name] ?? '')] as const)
  return Object.fromEntries(rows.filter(([, values]) => new Set(values).size > 1).map(([name, values]) => [name, [...values]]))
}

/** The options that aren't the server's defaults. */
export function changedSettings(run: StoredRun): Settings {
  const defaults = flat((run.kind === 'grpo' ? TrainerConfigSchema : HyperparametersSchema).parse({}))
  return Object.fromEntries(Object.entries(flat(run.options)).filter(([name, value]) => defaults[name] !== value))
}

function flat(value: object, prefix = ''): Settings {
  const entries = Object.entries(value).flatMap(([name, item]: [string, unknown]): [string, string][] => {
    const path = prefix + name
    if (typeof item === 'object' && item !== null && !Array.isArray(item)) return Object.entries(flat(item, `${path}.`))
    if (item === undefined) return []
    return [[path, typeof item === 'string' ? item : JSON.stringify(item)]]
  })
  return Object.fromEntries(entries)
}
