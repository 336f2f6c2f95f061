// Keeps the programs that a search has scored, as files.

import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import type { Module } from '../program'

/** Writes `evaluated_programs/program_TRIAL.json` under `logDir`, in DSPy's JSON state; a second, full evaluation has its own file. */
export async function saveCandidate(
  program: Module,
  { logDir, trial, full }: { readonly logDir: string; readonly trial: number; readonly full: boolean },
): Promise<string> {
  const folder = join(logDir, 'evaluated_programs')
  mkdirSync(folder, { recursive: true })
  const path = join(folder, `program_${trial}${full ? '_full_eval' : ''}.json`)
  await program.save(path)
  return path
}
