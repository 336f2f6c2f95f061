// The folder of fetched models: $ARBOR_HOME/models/<org>/<name>/, each with a source.json that says where it came from and what it must hold.

import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { mkdir, readdir, rename, rm, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { arborHome } from './arbor-home'
import type { ModelSource } from './engine'

export interface CachedModel extends ModelSource {
  readonly origin: string
  readonly bytes: number
}

interface Manifest {
  readonly origin: string
  readonly files: Readonly<Record<string, number>> // size in bytes by file name
}

const MANIFEST = 'source.json'

function modelFolder(name: string): string {
  return join(arborHome(), 'models', ...name.split('/'))
}

/** The fetched model of that name, or null when it isn't there or not whole. */
export function cachedModel(name: string): CachedModel | null {
  const folder = modelFolder(name)
  const manifest = readManifest(folder)
  if (!manifest) return null
  let bytes = 0
  for (const [file, size] of Object.entries(manifest.files)) {
    const path = join(folder, file)
    if (!existsSync(path) || statSync(path).size !== size) return null
    bytes += size
  }
  const gguf = Object.keys(manifest.files).find((file) => file.endsWith('.gguf'))
  const place =
    gguf === undefined ? { kind: 'folder' as const, path: folder } : { kind: 'gguf' as const, path: join(folder, gguf) }
  return { name, ...place, origin: manifest.origin, bytes }
}

/** All whole models of the cache, by name. */
export function cachedModels(): CachedModel[] {
  const root = join(arborHome(), 'models')
  const folders = (path: string): string[] =>
    existsSync(path)
      ? readdirSync(path, { withFileTypes: true })
          .filter((entry) => entry.isDirectory())
          .map((entry) => entry.name)
      : []
  const names = folders(root).flatMap((org) => folders(join(root, org)).map((model) => `${org}/${model}`))
  return names.sort().flatMap((name) => cachedModel(name) ?? [])
}

/**
 * Adds a model to the cache: `fill` puts its files into a staging folder, which gets the model's name when all of them are there.
 * What `fill` finished stays for the next try when it fails.
 */
export async function installModel(name: string, origin: string, fill: (staging: string) => Promise<void>): Promise<CachedModel> {
  const folder = modelFolder(name)
  const staging = `${folder}.partial`
  await mkdir(staging, { recursive: true })
  try {
    await fill(staging)
    const files: Record<string, number> = {}
    for (const file of await readdir(staging)) {
      if (file.endsWith('.tmp') || file === MANIFEST) await rm(join(staging, file))
      else files[file] = statSync(join(staging, file)).size
    }
    await writeFile(join(staging, MANIFEST), JSON.stringify({ origin, files } satisfies Manifest, null, 2) + '\n')
    if (!cachedModel(name)) await rm(folder, { recursive: true, force: true })
    await mkdir(dirname(folder), { recursive: true })
    await rename(staging, folder)
  } catch (error) {
    // Another process that fetched the same model may have been first.
    if (!cachedModel(name)) throw error
    await rm(staging, { recursive: true, force: true })
  }
  return cachedModel(name)!
}

function readManifest(folder: string): Manifest | null {
  try {
    return JSON.parse(readFileSync(join(folder, MANIFEST), 'utf8')) as Manifest
  } catch {
    return null // no manifest, or a damaged one: not a whole model
  }
}
