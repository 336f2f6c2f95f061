// What there is to export under a name: a job's checkpoint, a folder that training or peft wrote, or a base model as it is.

import { existsSync, statSync } from 'node:fs'
import { basename, dirname, join, resolve } from 'node:path'
import type { ModelSource } from '../engine/engine'
import { isAdapterFolder } from '../engine/lora-file'
import { resolveModel } from '../engine/model-source'
import { readJson } from '../engine/whole-file'
import { ModelError, nearestName, OptionError } from '../errors'
import { bareModelName } from '../protocol'
import { checkpointList, findCheckpoint, parseCheckpointName } from '../server/checkpoint-name'
import { JOB_ID, RunFolder } from '../server/run-folder'

export interface ExportSource {
  /** What the exported model is called inside its files. */
  readonly name: string
  readonly base: ModelSource
  /** The policy's folder; null: the base itself. */
  readonly dir: string | null
  /** For a person to read. */
  readonly origin: string
}

export interface SourceOptions {
  /** `runs/` is looked for here. */
  readonly storage: string
  /** The base model; default: what the run or the adapter says. */
  readonly base?: string
  readonly log?: (line: string) => void
  readonly progress?: (bytes: number, total: number) => void
}

/** @throws OptionError or ModelError that says what was looked for */
export async function findExportSource(asked: string, options: SourceOptions): Promise<ExportSource> {
  const name = bareModelName(asked)
  const { job, checkpoint } = parseCheckpointName(name) ?? { job: name, checkpoint: 'last' }
  const run = JOB_ID.test(job) ? RunFolder.at(options.storage, job) : null
  if (run?.exists) return ofRun({ job, checkpoint, run }, options)
  if (/^(grpo|ftjob):/.test(job)) throw new OptionError(noRun(job, options.storage))
  if (existsSync(name) && statSync(name).isDirectory() && isPolicyFolder(name)) return ofFolder(resolve(name), options)
  if (options.base !== undefined)
    throw new OptionError(
      `--base is for a job or an adapter's folder; "${asked}" is neither. Leave it out to export a base model.`,
    )
  const base = await resolveModel(name, options)
  return { name: base.name, base, dir: null, origin: `the base model ${base.name} (${base.origin})` }
}

async function ofRun(
  { job, checkpoint, run }: { job: string; checkpoint: string; run: RunFolder },
  options: SourceOptions,
): Promise<ExportSource> {
  const checkpoints = run.checkpoints()
  const found = findCheckpoint(checkpoints, checkpoint)
  if (!found) throw new OptionError(`Job ${job} has no checkpoint "${checkpoint}". ${checkpointList(checkpoints)}`)
  const { checkpoint_name: name, checkpoint_dir: dir, global_step: step } = found
  const base = await baseOf(run.path, options)
  if (!base) throw new ModelError(`${run.path}: config.json doesn't say which base model was trained. Give it with --base.`)
  return { name: `${base.name}-${job.replaceAll(':', '-')}`, base, dir, origin: `checkpoint ${name} (step ${step}) of ${job}` }
}

/** A folder that stands for more than itself: an adapter, or a checkpoint of all weights without the base's tokenizer. */
function isPolicyFolder(folder: string): boolean {
  return isAdapterFolder(folder) || existsSync(join(folder, 'checkpoint.json'))
}

async function ofFolder(dir: string, options: SourceOptions): Promise<ExportSource> {
  const base = (await baseOf(dirname(dirname(dir)), options)) ?? (await adapterBase(dir, options))
  if (!base) throw new ModelError(`${dir}: nothing there says which base model it was made for. Give it with --base.`)
  return { name: `${base.name}-${basename(dir)}`, base, dir, origin: `the policy in ${dir}` }
}

/** The base of the run in `folder`: --base, else where its files lay, else its name. Null where there is no run. */
async function baseOf(folder: string, options: SourceOptions): Promise<ModelSource | null> {
  if (options.base !== undefined) return resolveModel(options.base, options)
  const path = join(folder, 'config.json')
  if (!existsSync(path)) return null
  const config = readJson(path) as { job_id?: string; model?: string; base?: string; base_path?: string }
  if (config.job_id === undefined) return null
  const name = bareModelName(config.base ?? config.model ?? '')
  const stored = config.base_path
  if (stored && existsSync(stored))
    return { name: basename(name), kind: stored.endsWith('.gguf') ? 'gguf' : 'folder', path: stored }
  return name === '' ? null : resolveModel(name, options)
}

async function adapterBase(dir: string, options: SourceOptions): Promise<ModelSource | null> {
  const path = join(dir, 'adapter_config.json')
  const name = existsSync(path) ? readJson(path)['base_model_name_or_path'] : null
  return typeof name === 'string' && name !== '' ? resolveModel(name, options) : null
}

function noRun(job: string, storage: string): string {
  const jobs = RunFolder.all(storage)
  const near = nearestName(job, jobs)
  return `There is no run "${job}" in ${join(storage, 'runs')}.${near ? ` Did you mean ${near}?` : ''} Another place is given with --storage.`
}
