// Small files, written whole or not at all: under a temporary name first, so that a reader never sees half of one.

import { readFileSync, renameSync, writeFileSync } from 'node:fs'

/** `write` fills the file it is given; then it takes the place of `path`. */
export function replaceFile(path: string, write: (temporary: string) => void): void {
  const temporary = `${path}.${process.pid}.tmp`
  write(temporary)
  renameSync(temporary, path)
}

export function writeWhole(path: string, text: string): void {
  replaceFile(path, (temporary) => writeFileSync(temporary, text))
}

export function writeJson(path: string, value: unknown): void {
  writeWhole(path, `${JSON.stringify(value, null, 2)}\n`)
}

export function readJson(path: string): Record<string, unknown> {
  return JSON.parse(readFileSync(path, 'utf8')) as Record<string, unknown>
}
