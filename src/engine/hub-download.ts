// Fetches a model's files from the Hugging Face hub, each checked against the checksum that the hub lists for it.

import { join } from 'node:path'
import { downloadFile, HubApiError, type ListFileEntry, listFiles } from '@huggingface/hub'
import { ModelError } from '../errors'
import { type CachedModel, installModel } from './model-cache'
import { type Expected, isVerified, writeVerified } from './verified-file'

/** Offline must show within seconds: the first answer is waited for this long, once. */
const FIRST_ANSWER_MS = 5_000

const TEXT_FILES = new Set([
  'config.json',
  'generation_config.json',
  'tokenizer.json',
  'tokenizer_config.json',
  'chat_template.jinja',
])
const WEIGHTS = /^model(-\d+-of-\d+)?\.safetensors$|^model\.safetensors\.index\.json$/

/** Why the hub did not give the model; `reached` tells a missing model from a missing network. */
export class HubError extends ModelError {
  readonly reached: boolean
  constructor(message: string, options: { reached: boolean; cause?: unknown }) {
    super(message, { cause: options.cause })
    this.reached = options.reached
  }
}

/** Downloads `name` (org/model) into the cache. HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE mean what they mean to Hugging Face's own tools. */
export async function downloadFromHub(name: string, progress: (bytes: number, total: number) => void): Promise<CachedModel> {
  if (/^(1|true|yes|on)$/i.test(process.env['HF_HUB_OFFLINE'] ?? ''))
    throw new HubError('HF_HUB_OFFLINE is set, so the hub was not asked', { reached: false })
  const repository = {
    repo: { type: 'model' as const, name },
    hubUrl: process.env['HF_ENDPOINT'],
    accessToken: process.env['HF_TOKEN'],
  }
  const files = await wantedFiles(name, repository)
  const total = files.reduce((sum, file) => sum + expectedOf(file).size, 0)
  let bytes = 0
  return installModel(name, 'the Hugging Face hub', async (staging) => {
    for (const file of files) {
      const path = join(staging, file.path)
      const expected = expectedOf(file)
      if (await isVerified(path, expected)) {
        progress((bytes += expected.size), total)
        continue
      }
      const blob = await downloadFile({ ...repository, path: file.path, xet: false }).catch(asHubError)
      if (!blob) throw new HubError(`the hub lists ${file.path} and does not give it`, { reached: true })
      const onBytes = (count: number) => progress((bytes += count), total)
      await writeVerified(path, blob.stream() as unknown as AsyncIterable<Uint8Array>, { expected, onBytes })
    }
  })
}

type Repository = Parameters<typeof listFiles>[0]

async function wantedFiles(name: string, repository: Repository): Promise<ListFileEntry[]> {
  const all: ListFileEntry[] = []
  const limited: typeof fetch = (input, init) => fetch(input, { ...init, signal: AbortSignal.timeout(FIRST_ANSWER_MS) })
  try {
    for await (const file of listFiles({ ...repository, fetch: limited })) all.push(file)
  } catch (error) {
    asHubError(error)
  }
  const wanted = all.filter((file) => file.type === 'file' && (TEXT_FILES.has(file.path) || WEIGHTS.test(file.path)))
  const has = (test: (path: string) => boolean) => wanted.some((file) => test(file.path))
  const missing = [
    ...['config.json', 'tokenizer.json'].filter((path) => !has((file) => file === path)),
    ...(has((file) => file.endsWith('.safetensors')) ? [] : ['model.safetensors']),
  ]
  if (missing.length === 0) return wanted
  const gguf = all.some((file) => file.path.endsWith('.gguf')) ? '; download one of its .gguf files and give its path' : ''
  throw new HubError(`"${name}" is on the hub, but without ${missing.join(' and ')}${gguf}`, { reached: true })
}

function expectedOf(file: ListFileEntry): Expected {
  if (file.lfs) return { size: file.lfs.size, checksum: { kind: 'sha256', value: file.lfs.oid } }
  return { size: file.size, checksum: { kind: 'git-sha1', value: file.oid ?? '' } }
}

function asHubError(cause: unknown): never {
  if (!(cause instanceof HubApiError)) {
    const error = cause as Error & { cause?: { code?: string } }
    const reason = error.name === 'TimeoutError' ? `no answer within ${FIRST_ANSWER_MS / 1000} s` : error.cause?.code
    throw new HubError(`the hub cannot be reached (${reason ?? error.message})`, { reached: false, cause })
  }
  const status = cause.statusCode
  const known: Record<number, string> = {
    401: 'the hub does not have it, or only for people with access (set HF_TOKEN)',
    403: 'the hub refuses access (accept the licence on its page, then set HF_TOKEN)',
    404: 'the hub does not have it',
  }
  throw new HubError(known[status] ?? `the hub answered ${status}: ${cause.message}`, {
    reached: known[status] !== undefined,
    cause,
  })
}
