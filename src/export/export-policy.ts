// Writes a policy for other programs, and calls the files good only after they were loaded again and answered as the policy does.
// Until then they lie under another name.

import { copyFileSync, existsSync, mkdirSync, renameSync, rmSync } from 'node:fs'
import { basename, dirname, join, resolve } from 'node:path'
import type { ModelSource } from '../engine/engine'
import type { GgufType } from '../engine/gguf-encode'
import { writeGguf } from '../engine/gguf-writer'
import { LocalEngine } from '../engine/local-engine'
import { ADAPTER, isAdapterFolder } from '../engine/lora-file'
import { writeModelFolder } from '../engine/model-folder'
import type { Device } from '../engine/ops/open-backend'
import { openPolicyAsModel } from '../engine/policy-as-model'
import { readJson, writeJson } from '../engine/whole-file'
import { ModelError, OptionError } from '../errors'
import { type Answers, askPolicy, compareWritten, type ExportCheck, requireLikeness } from './check'
import { ggufVocabulary } from './gguf-vocabulary'
import { type Probes, probesFor, requireSameText } from './probes'
import type { ExportSource } from './source'
import { tokenizerFiles, writeTokenizerFiles } from './tokenizer-files'

export const EXPORT_FORMATS = ['safetensors', 'gguf', 'adapter'] as const
export type ExportFormat = (typeof EXPORT_FORMATS)[number]

/** Nats a token, on the mean, that the rounding of the type may cost. Measured on arbor-tiny and SmolLM2: bench/LOG.md. */
const LIKENESS: Readonly<Record<GgufType, number>> = { f32: 1e-7, f16: 1e-4, bf16: 1e-2, q8_0: 3e-2 }

export interface ExportOptions {
  readonly source: ExportSource
  /** A folder, or a file for GGUF. */
  readonly out: string
  readonly format: ExportFormat
  /** Of matrices; an adapter is always copied as it is. */
  readonly type: GgufType
  /** Takes the place of what lies at `out`. */
  readonly force?: boolean
  /** Bytes of one file of a model folder. */
  readonly shardBytes?: number
  readonly device?: Device
  readonly log?: (line: string) => void
}

export interface ExportResult extends ExportCheck {
  /** KL(policy ‖ base), nats a token: how far training went. Null for a base model. */
  readonly trainedKl: number | null
}

/** @throws OptionError for what can't be meant, ModelError when the files are not the policy; nothing lies at `out` then */
export async function exportPolicy(options: ExportOptions): Promise<ExportResult> {
  const { source, format, log = () => {} } = options
  const out = resolve(options.out)
  checkOptions(options, out)
  const probes = await probesFor(source.base)
  log(`Asking ${source.origin} …`)
  const { wanted, trainedKl } = await reference(options, probes)
  const unchecked = join(dirname(out), `.unchecked-${basename(out)}`) // the ending stays: it names the kind
  rmSync(unchecked, { recursive: true, force: true })
  mkdirSync(dirname(out), { recursive: true })
  try {
    log(`Writing ${format === 'adapter' ? 'the adapter' : `${format}, ${options.type}`} …`)
    await write(unchecked, options)
    log('Loading what was written, and comparing …')
    const check = await checkWritten(unchecked, options, { probes, wanted })
    if (options.force) rmSync(out, { recursive: true, force: true })
    renameSync(unchecked, out)
    return { ...check, trainedKl }
  } catch (error) {
    rmSync(unchecked, { recursive: true, force: true })
    if (!(error instanceof ModelError)) throw error
    throw new ModelError(`${error.message}\nWhat was written has been removed; there is nothing at ${out}.`, { cause: error })
  }
}

function checkOptions({ source, format, type, force }: ExportOptions, out: string): void {
  if (existsSync(out) && !force) throw new OptionError(`${out} is there already. Give another --out, or --force to replace it.`)
  if (format === 'adapter' && (source.dir === null || !isAdapterFolder(source.dir)))
    throw new OptionError(`${source.origin} is no adapter: all its weights are its own. Export it as safetensors or gguf.`)
  if (format === 'safetensors' && type === 'q8_0')
    throw new OptionError('A model folder takes f32, f16 or bf16; q8_0 is a type of GGUF files.')
  if (format === 'gguf' && !out.endsWith('.gguf')) throw new OptionError(`${out}: the name of a GGUF file ends in .gguf.`)
}

/** What the policy answers, and how far it is from its base. */
async function reference(options: ExportOptions, probes: Probes): Promise<{ wanted: Answers; trainedKl: number | null }> {
  const { base, dir } = options.source
  return withEngine(base, options, async (engine) => {
    if (dir === null) return { wanted: await askPolicy(engine, null, probes), trainedKl: null }
    await engine.openSaved('policy', dir)
    const wanted = await askPolicy(engine, 'policy', probes)
    return { wanted, trainedKl: (await compareWritten(engine, null, { ...probes, wanted })).meanKl }
  })
}

async function write(to: string, { source, format, type, shardBytes }: ExportOptions): Promise<void> {
  const { base, dir, name } = source
  if (format === 'adapter') return writeAdapter(dir!, base, to)
  const vocabulary = format === 'gguf' ? await tokenizerFiles(base) : null
  const open = await openPolicyAsModel(base, dir)
  try {
    if (vocabulary) return writeGguf(to, { ...open, name, vocabulary: ggufVocabulary(vocabulary, open.config, base.name) }, type)
    const baseConfig = base.kind === 'folder' ? readJson(join(base.path, 'config.json')) : null
    writeModelFolder(to, open, { type: type as 'f32', baseConfig, ...(shardBytes === undefined ? {} : { shardBytes }) })
    await writeTokenizerFiles(base, to)
  } finally {
    open.weights.close()
  }
}

/** peft's two files; the optimizer's state is training's alone. peft finds the base by its hub name, else by its folder. */
function writeAdapter(dir: string, base: ModelSource, to: string): void {
  mkdirSync(to, { recursive: true })
  const config = readJson(join(dir, 'adapter_config.json'))
  const name = /^[\w.-]+\/[\w.-]+$/.test(base.name) ? base.name : base.path
  writeJson(join(to, 'adapter_config.json'), { ...config, base_model_name_or_path: name })
  copyFileSync(join(dir, ADAPTER), join(to, ADAPTER))
}

async function checkWritten(
  path: string,
  options: ExportOptions,
  { probes, wanted }: { probes: Probes; wanted: Answers },
): Promise<ExportCheck> {
  const { source, format, type } = options
  const adapter = format === 'adapter'
  const written: ModelSource = { name: 'written', kind: format === 'gguf' ? 'gguf' : 'folder', path }
  const check = await withEngine(adapter ? source.base : written, options, async (engine) => {
    if (adapter) await engine.openSaved('written', path)
    return compareWritten(engine, adapter ? 'written' : null, { ...probes, wanted })
  })
  requireLikeness(check, adapter ? LIKENESS.f32 : LIKENESS[type], basename(path).replace('.unchecked-', ''))
  if (!adapter) await requireSameText(written, probes)
  return check
}

/** In f32, whatever a server would take: the files are compared, not the device's rounding. */
async function withEngine<Result>(
  model: ModelSource,
  { device = 'auto' }: ExportOptions,
  use: (engine: LocalEngine) => Promise<Result>,
): Promise<Result> {
  const engine = new LocalEngine({ device, precision: 'f32', kvCacheTokens: 4096 })
  try {
    await engine.load(model)
    return await use(engine)
  } finally {
    await engine.close()
  }
}
