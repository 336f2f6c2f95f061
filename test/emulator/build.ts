// Builds the library of the emulated GPU, once for the same sources, into $ARBOR_HOME/native.

import { createHash } from 'node:crypto'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { arborHome } from '../../src/engine/arbor-home'
import { buildTarget, ensureTools } from '../../src/engine/ops/build-tools'
import type { NativeLibrary } from '../../src/engine/ops/native'
import { packageRoot } from '../../src/engine/package-root'
import { translate } from './translate'

export const OWN = join(packageRoot(), 'test', 'emulator')
const KERNELS = join(packageRoot(), 'kernels')

/** libarbor_cuda without a GPU. It is its own cuBLASLt: this process looks it up there from now on. */
export async function emulatedCuda(): Promise<NativeLibrary> {
  const sources = translatedSources()
  const watch = process.env['ARBOR_EMULATOR_WATCH'] === '1'
  const folder = join(arborHome(), 'native', `${hash(sources)}-emulator${watch ? '-watch' : ''}`)
  const path = join(folder, 'libarbor_emulated.so')
  const translated = mkdtempSync(join(tmpdir(), 'arbor-emulator-'))
  try {
    await buildTarget({
      folder,
      source: OWN,
      target: 'arbor_emulated',
      what: 'the emulated GPU (once, about a minute)',
      definitions: () => [`-DSOURCES=${translated}`, `-DWATCH=${watch ? 'ON' : 'OFF'}`],
      prepare: async () => {
        await ensureTools(() => {})
        mkdirSync(join(translated, 'cuda'), { recursive: true })
        for (const [name, text] of sources) writeFileSync(join(translated, name), text)
      },
      log: (line) => console.error(line),
    })
  } finally {
    rmSync(translated, { recursive: true, force: true })
  }
  process.env['ARBOR_CUBLASLT'] = path
  process.env['ARBOR_NCCL'] = path
  return { path, description: 'emulated GPU' }
}

/** What PTX or the driver alone can say: this folder has its own. */
const REPLACED = ['instructions.cuh', 'tile_map.cuh']

/** By their names; a .cu file is a .cpp file here. */
function translatedSources(): Map<string, string> {
  const sources = new Map([['arbor_ops.h', readFileSync(join(KERNELS, 'arbor_ops.h'), 'utf8')]])
  for (const name of readdirSync(join(KERNELS, 'cuda')).sort()) {
    if (!/\.(cu|cuh|h)$/.test(name)) continue
    const folder = REPLACED.includes(name) ? OWN : join(KERNELS, 'cuda')
    sources.set(join('cuda', name.replace(/\.cu$/, '.cpp')), translate(readFileSync(join(folder, name), 'utf8')))
  }
  return sources
}

/** Of all that the library is made from. */
function hash(sources: ReadonlyMap<string, string>): string {
  const all = createHash('sha256').update(`${process.platform} ${process.arch}`)
  for (const [name, text] of sources) all.update(`\n${name}\n${text}`)
  for (const folder of [OWN, join(OWN, 'include')])
    for (const name of readdirSync(folder).sort())
      if (/\.(cpp|h|txt)$/.test(name)) all.update(`\n${name}\n`).update(readFileSync(join(folder, name)))
  return all.digest('hex').slice(0, 16)
}
