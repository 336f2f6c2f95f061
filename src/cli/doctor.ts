// arbor-nb doctor: what this machine has for the job, what is missing, and the command that gets it.

import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { availableParallelism, cpus, totalmem } from 'node:os'
import { join } from 'node:path'
import { arborHome } from '../engine/arbor-home'
import { BUNDLED_MODELS, bundledModel } from '../engine/bundled-models'
import { cachedModels } from '../engine/model-cache'
import { type Finding, gpuFindings } from './doctor-gpu'
import { jupyterOnPath, ownVenv } from './jupyter'
import { parseOptions } from './options'
import { type PackageInfo, packageInfo } from './package-info'
import { formatBytes } from './progress'

export const help = `Usage: arbor-nb doctor

Lists what is there and what is missing: Node, npm packages, the native library and what builds it, the GPU,
TensorFlow.js, danfojs, python3 and JupyterLab, the model that comes with arbor-nb, and those of the cache. Exit code 0 when training on this machine can work.

  -h, --help   this text`

export async function run(argv: readonly string[]): Promise<number> {
  parseOptions(argv, {})
  const info = packageInfo()
  const findings = [
    machine(),
    node(info),
    packages(info),
    await native(),
    ...optionalPackages(info),
    ...tools(),
    jupyterLab(),
    ...(await gpuFindings()),
    ...BUNDLED_MODELS.map(ownModel),
    ...fetchedModels(),
  ]
  for (const { what, state, detail, hint } of findings) {
    const mark = { ok: '✓', missing: '✗', absent: '·' }[state]
    process.stdout.write(`${mark} ${what.padEnd(16)} ${detail}\n${hint === undefined ? '' : `${' '.repeat(19)}→ ${hint}\n`}`)
  }
  const missing = findings.filter((finding) => finding.state === 'missing').map((finding) => finding.what)
  process.stdout.write(missing.length === 0 ? '\nReady.\n' : `\nMissing: ${missing.join(', ')}.\n`)
  return missing.length === 0 ? 0 : 1
}

function machine(): Finding {
  const flags = existsSync('/proc/cpuinfo') ? readFileSync('/proc/cpuinfo', 'utf8') : ''
  const simd = ['avx2', 'avx512f', 'avx512_bf16', 'amx_bf16'].filter((flag) => new RegExp(`\\b${flag}\\b`).test(flags))
  const detail = `${cpus()[0]?.model ?? process.arch}, ${availableParallelism()} threads, ${formatBytes(totalmem())} memory`
  return { what: 'machine', state: 'ok', detail: simd.length ? `${detail}, ${simd.join(' ')}` : detail }
}

function node(info: PackageInfo): Finding {
  const need = info.engines.node.replace(/[^\d.]/g, '')
  const [have, least] = [process.versions.node, need].map((version) => version.split('.').map(Number)) as [number[], number[]]
  const enough = have[0]! > least[0]! || (have[0] === least[0] && have[1]! >= (least[1] ?? 0))
  if (enough) return { what: 'Node', state: 'ok', detail: process.versions.node }
  return { what: 'Node', state: 'missing', detail: process.versions.node, hint: `Node ${need} or newer, from https://nodejs.org` }
}

/** The installed version, looked up as Node does: in node_modules of this folder and those above. */
function installedVersion(name: string, root: string): string | null {
  for (const path of require.resolve.paths(name) ?? [join(root, 'node_modules')]) {
    const file = join(path, name, 'package.json')
    if (existsSync(file)) return (JSON.parse(readFileSync(file, 'utf8')) as { version: string }).version
  }
  return null
}

function packages(info: PackageInfo): Finding {
  const names = Object.keys(info.dependencies)
  const gone = names.filter((name) => installedVersion(name, info.root) === null)
  if (gone.length === 0) return { what: 'npm packages', state: 'ok', detail: `all ${names.length} are installed` }
  return { what: 'npm packages', state: 'missing', detail: `without ${gone.join(', ')}`, hint: `cd ${info.root} && npm ci` }
}

/** Loaded only here: without its npm package the rest of the report must still come. */
async function native(): Promise<Finding> {
  const what = 'native library'
  try {
    const { nativeStatus } = await import('../engine/ops/build-native')
    const { found, path, description, compiler, missing } = await nativeStatus()
    if (found && path !== null)
      return { what, state: 'ok', detail: `${description}, ${await precisionText(path, description)} (${path})` }
    if (missing !== null) return { what, state: 'missing', detail: description, hint: missing }
    return { what, state: 'absent', detail: `${description}${compiler === null ? '' : `, with ${compiler}`}` }
  } catch (error) {
    return { what, state: 'missing', detail: (error as Error).message.split('\n')[0]!, hint: 'npm ci, then npm start' }
  }
}

/** What frozen weights are kept in when nobody asks for a precision. */
async function precisionText(path: string, description: string): Promise<string> {
  const { openNative } = await import('../engine/ops/native')
  const backend = openNative({ path, description })
  backend.close()
  return `frozen weights in ${backend.precision}`
}

function optionalPackages(info: PackageInfo): Finding[] {
  const purpose: Readonly<Record<string, string>> = {
    '@tensorflow/tfjs': 'the reference device',
    '@tensorflow/tfjs-node-gpu': 'faster reference device; needs an old CUDA, nothing depends on it',
    'danfojs-node': 'result tables as data frames',
  }
  return Object.entries(purpose).map(([name, use]) => {
    const what = name.replace('@tensorflow/', '')
    const version = installedVersion(name, info.root)
    if (version !== null) return { what, state: 'ok', detail: `${version} (${use})` }
    const wanted = info.optionalDependencies[name]
    return { what, state: 'absent', detail: `not installed (${use})`, hint: `npm install ${name}@${wanted ?? 'latest'}` }
  })
}

/** First line that a program prints about its version, or null when it isn't there. */
function versionOf(command: string, args: readonly string[] = ['--version']): string | null {
  const result = spawnSync(command, args, { encoding: 'utf8', timeout: 10_000 })
  if (result.error || result.status !== 0) return null
  return (result.stdout || result.stderr).trim().split('\n')[0] ?? ''
}

function tools(): Finding[] {
  const tool = (what: string, found: string | null, use: string, debianPackage: string): Finding =>
    found === null
      ? { what, state: 'absent', detail: `not found (${use})`, hint: `Debian, Ubuntu: apt-get install ${debianPackage}` }
      : { what, state: 'ok', detail: found }
  const builds = 'builds the native library'
  const pip = versionOf('python3', ['-m', 'pip', '--version']) ?? versionOf('pip3')
  return [
    tool('cmake', versionOf('cmake'), builds, 'cmake'),
    tool('C++ compiler', versionOf('c++'), builds, 'g++ make'),
    tool('python3', versionOf('python3'), 'runs JupyterLab and pip', 'python3 python3-venv'),
    tool('pip', pip?.split(' from ')[0] ?? null, 'gets SmolLM2 when the Hugging Face hub is out of reach', 'python3-pip'),
  ]
}

function jupyterLab(): Finding {
  const what = 'JupyterLab'
  const found = jupyterOnPath()
  if (found && !found.tooOld)
    return { what, state: 'ok', detail: `${found.version} (jupyter on PATH); npx arbor-nb lab opens the workbook in it` }
  if (existsSync(ownVenv())) return { what, state: 'ok', detail: `in ${ownVenv()}; npx arbor-nb lab opens the workbook in it` }
  const detail = found ? `${found.version} is too old (4 is needed)` : 'not found; notebooks run without it, by arbor-nb run'
  return { what, state: 'absent', detail, hint: 'npx arbor-nb lab installs it for itself and opens the workbook (needs python3)' }
}

function ownModel(name: string): Finding {
  try {
    const { origin, bytes } = bundledModel(name)!
    return { what: 'model', state: 'ok', detail: `${name}, ${formatBytes(bytes)}, ${origin}` }
  } catch (error) {
    return { what: 'model', state: 'missing', detail: (error as Error).message }
  }
}

function fetchedModels(): Finding[] {
  const found = cachedModels()
  if (found.length === 0) {
    const hint = 'arbor-nb fetch HuggingFaceTB/SmolLM2-135M-Instruct'
    return [{ what: 'fetched models', state: 'absent', detail: `none in ${join(arborHome(), 'models')}; none is needed`, hint }]
  }
  return found.map((model) => ({
    what: 'model',
    state: 'ok',
    detail: `${model.name}, ${formatBytes(model.bytes)}, from ${model.origin}`,
  }))
}
