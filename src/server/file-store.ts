// Uploaded files: OpenAI's /files over a folder. Each lies in files/<id>/ with its description beside it, so they outlive the server.

import { randomUUID } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { writeJson } from '../engine/whole-file'
import type { FileObject } from '../protocol'
import { HttpError } from './http-errors'

const FILE_ID = /^file-[0-9a-f-]{36}$/

export class FileStore {
  readonly #folder: string

  constructor(storage: string) {
    this.#folder = join(storage, 'files')
  }

  /** Keeps `text`; the description is written last, so a file with one is whole. */
  add({ filename, purpose, text }: { filename: string; purpose: string; text: string }): FileObject {
    const id = `file-${randomUUID()}`
    const dir = join(this.#folder, id)
    mkdirSync(dir, { recursive: true })
    writeFileSync(join(dir, 'content'), text)
    const bytes = Buffer.byteLength(text)
    const created_at = Math.floor(Date.now() / 1000)
    const file: FileObject = { id, object: 'file', bytes, created_at, filename, purpose, status: 'processed' }
    writeJson(join(dir, 'file.json'), file)
    return file
  }

  /** Newest first, as OpenAI lists them. */
  list(): FileObject[] {
    if (!existsSync(this.#folder)) return []
    return readdirSync(this.#folder)
      .filter((id) => this.#has(id))
      .map((id) => this.get(id))
      .sort((a, b) => b.created_at - a.created_at)
  }

  /** @throws HttpError 404 for an id that no file has */
  get(id: string): FileObject {
    if (!this.#has(id)) throw new HttpError(404, `No file "${id}" in this server.`, { code: 'file_not_found', param: 'file_id' })
    return JSON.parse(readFileSync(join(this.#folder, id, 'file.json'), 'utf8')) as FileObject
  }

  /** @throws HttpError 404 */
  text(id: string): string {
    this.get(id)
    return readFileSync(join(this.#folder, id, 'content'), 'utf8')
  }

  /** @throws HttpError 404 */
  delete(id: string): void {
    this.get(id)
    rmSync(join(this.#folder, id), { recursive: true })
  }

  #has(id: string): boolean {
    return FILE_ID.test(id) && existsSync(join(this.#folder, id, 'file.json'))
  }
}
