// Small files, written whole or not at all.

import { readFileSync, renameSync, writeFileSync } from 'node:fs'

/** Writes under a temporary name and renames it: a reader never sees half a file. */
export function writeWhole(path: string, content: string): void {
  const temporary = `${path}.${process.pid}.tmp`
  writeFileSync(temporary, content)
  renameSync(temporary, path)
}

export function writeJson(path: string, value: unknown): void {
  writeWhole(path, `${JSON.stringify(value, null, 2)}\n`)
}

export function readJson(path: string): Record<string, unknown> {
  return JSON.parse(readFileSync(path, 'utf8')) as Record<string, unknown>
}
