// Builds the native CPU library at first use, with the machine's own compiler, into $ARBOR_HOME/native/<hash of the sources>/, and picks the
// variant for this CPU. Later uses find it there.

import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { OptionError } from '../../errors'
import { arborHome } from '../arbor-home'
import {
  type BuildOptions,
  buildTarget as buildLibrary,
  ensureTools,
  installHint,
  missingTools,
  sourceHash,
  toolVersion,
} from './build-tools'
import type { NativeLibrary } from './native'
import { loadNative } from './native-library'

const ISAS = ['scalar', 'avx2', 'avx512', 'avx512bf16', 'amx'] as const
export type Isa = (typeof ISAS)[number]

const AVX512 = ['avx512f', 'avx512bw', 'avx512dq', 'avx512vl', 'avx2', 'fma']

/** What a CPU must report for a build to run on it. */
const CPU_FLAGS: Readonly<Record<Isa, readonly string[]>> = {
  scalar: [],
  avx2: ['avx2', 'fma'],
  avx512: AVX512,
  avx512bf16: [...AVX512, 'avx512_bf16'],
  amx: [...AVX512, 'avx512_bf16', 'amx_tile', 'amx_bf16'],
}

/** What `arbor-nb doctor` shows. */
export interface NativeStatus {
  readonly found: boolean
  readonly path: string | null
  readonly isa: string | null
  /** Instruction set, matrix products and threads, as the library says. */
  readonly description: string
  readonly compiler: string | null
  /** What to do when something is missing; null when nothing is. */
  readonly missing: string | null
}

/** The library for this CPU, built when it isn't there yet. Throws BackendError that names what is missing and the command that installs it. */
export async function ensureNative({ log = () => {} }: BuildOptions = {}): Promise<NativeLibrary> {
  const target = buildTarget()
  const { folder, isa } = target
  const what = `the native library for ${isa} (once, about half a minute)`
  await buildLibrary({ folder, target: `arbor_cpu_${isa}`, what, prepare: () => ensureTools(log), log })
  return open(target)
}

/** Looks, builds nothing. */
export async function nativeStatus(): Promise<NativeStatus> {
  const target = buildTarget()
  const compiler = await toolVersion('c++')
  const missing = (await missingTools()).length > 0 ? installHint() : null
  const known = { isa: target.isa, compiler, missing }
  if (!existsSync(target.folder))
    return { ...known, found: false, path: null, description: 'not built yet: the first use builds it' }
  try {
    return { ...known, found: true, ...open(target), missing: null }
  } catch (error) {
    return { ...known, found: false, path: target.folder, description: (error as Error).message }
  }
}

interface Target {
  readonly isa: Isa
  readonly folder: string
  readonly path: string
}

function buildTarget(): Target {
  const isa = chooseIsa()
  const folder = join(arborHome(), 'native', `${sourceHash('cpu')}-${isa}`)
  return { isa, folder, path: join(folder, `libarbor_cpu_${isa}.${process.platform === 'darwin' ? 'dylib' : 'so'}`) }
}

/** The best instruction set that the CPU reports, at most what ARBOR_MAX_ISA says. */
function chooseIsa(): Isa {
  const wish = process.env['ARBOR_MAX_ISA'] ?? ISAS.at(-1)!
  const most = ISAS.indexOf(wish as Isa)
  if (most < 0) throw new OptionError(`ARBOR_MAX_ISA is "${wish}"; it takes ${ISAS.join(', ')}.`)
  return possibleIsas()
    .filter((isa) => ISAS.indexOf(isa) <= most)
    .at(-1)!
}

/** Every instruction set that a build exists for and this CPU reports, the plainest first: values of ARBOR_MAX_ISA. */
export function possibleIsas(): readonly Isa[] {
  const flags = cpuFlags()
  return ISAS.filter((isa) => CPU_FLAGS[isa].every((flag) => flags.has(flag)))
}

/** Linux only: elsewhere the portable build is taken (on ARM it has NEON by itself). */
function cpuFlags(): ReadonlySet<string> {
  if (process.arch !== 'x64' || !existsSync('/proc/cpuinfo')) return new Set()
  return new Set(/^flags\s*:(.*)$/m.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[1]?.trim().split(/\s+/))
}

function open({ path }: Target): NativeLibrary {
  return { path, description: String(loadNative(path).call('arbor_description')()) }
}
