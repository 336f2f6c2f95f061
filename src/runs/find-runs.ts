// The runs of a storage folder: all of them, or the one that a person means.

import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { nearestName, OptionError } from '../errors'
import type { StoredRun } from './stored-run'

export interface FoundRuns<Run> {
  /** The newest first. */
  readonly runs: Run[]
  /** Folders that hold no run that can be read, each with the reason. */
  readonly unreadable: string[]
}

/** All runs of `storage`, each made by `read`. A folder that can't be read is told and hides no other. */
export function findRuns<Run extends StoredRun>(storage: string, read: (folder: string) => Run): FoundRuns<Run> {
  const parent = join(storage, 'runs')
  const runs: Run[] = []
  const unreadable: string[] = []
  for (const name of existsSync(parent) ? readdirSync(parent) : []) {
    if (!existsSync(join(parent, name, 'config.json'))) continue // being made
    try {
      runs.push(read(join(parent, name)))
    } catch (error) {
      if (!(error instanceof OptionError)) throw error
      unreadable.push(error.message)
    }
  }
  return { runs: runs.sort((a, b) => b.created - a.created || a.id.localeCompare(b.id)), unreadable }
}

/**
 * The run of this id, or the one whose id holds `name`; 'last' is the newest.
 * @throws OptionError when it is none or several
 */
export function runNamed<Run extends StoredRun>(runs: readonly Run[], name: string, storage: string): Run {
  if (runs.length === 0) throw new OptionError(`There are no runs in ${join(storage, 'runs')}.`)
  const exact = name === 'last' ? runs[0] : runs.find(({ id }) => id === name)
  if (exact) return exact
  const holding = runs.filter(({ id }) => id.includes(name))
  if (holding.length === 1) return holding[0]!
  if (holding.length > 1)
    throw new OptionError(`"${name}" may be any of ${holding.map(({ id }) => id).join(', ')}: write more of the id.`)
  const near = nearestName(
    name,
    runs.flatMap(({ id }) => [id, ...id.split(':')]),
  )
  throw new OptionError(`No run "${name}" in ${join(storage, 'runs')}.${near ? ` Did you mean "${near}"?` : ''}`)
}
