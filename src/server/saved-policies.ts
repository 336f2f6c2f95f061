// Policies on disk as models: JOB@CHECKPOINT, a job of an earlier server, an adapter that was given a name. Opened at the first question.

import { statSync } from 'node:fs'
import { join } from 'node:path'
import type { Engine, ModelInfo } from '../engine/engine'
import { bareModelName, type CheckpointRecord } from '../protocol'
import { bestCheckpoint, checkpointList, findCheckpoint, parseCheckpointName } from './checkpoint-name'
import { HttpError } from './http-errors'
import { JOB_ID, RunFolder } from './run-folder'
import type { ServedJob } from './services'

export interface SavedPoliciesSetup {
  readonly engine: Engine
  readonly model: ModelInfo
  readonly modelNames: readonly string[]
  readonly basePath?: string
  readonly storage: string
  /** Folders of adapters (or of all weights) that answer under a name of their own. */
  readonly adapters?: ReadonlyMap<string, string>
}

/** Where a saved policy lies. */
export interface SavedPolicy {
  /** Under which it is open in the engine; another one for every time that the checkpoint was written. */
  readonly policy: string
  readonly dir: string
}

interface Opened {
  readonly opening: Promise<{ readonly parameters: number }>
  parameters: number
  asked: number // ms
}

/** Kept open at most, and for how long at least: whoever was told that it is open has to get to ask it. */
const OPEN_AT_MOST = 8
const OPEN_AT_LEAST_MS = 10_000

export class SavedPolicies {
  readonly #opened = new Map<string, Opened>()
  /** What a run's folder says, and the time of its list of checkpoints. */
  readonly #runs = new Map<string, { readonly changed: number; readonly names: readonly string[] }>()

  constructor(private readonly setup: SavedPoliciesSetup) {}

  /**
   * The policy of this name as something that answers; null for a name that stands for nothing saved.
   * @throws HttpError 404 for a job without that checkpoint, or of another base
   */
  find(name: string): ServedJob | null {
    const saved = this.locate(name)
    if (!saved) return null
    return { id: saved.policy, contextLength: this.setup.model.contextLength, trained: () => this.open(saved) }
  }

  /** Where the policy of this name lies. @throws as `find` */
  locate(name: string): SavedPolicy | null {
    const adapter = this.setup.adapters?.get(name)
    if (adapter !== undefined) return { policy: `adapter ${name}`, dir: adapter }
    const { job, checkpoint } = parseCheckpointName(name) ?? { job: name, checkpoint: 'last' }
    if (!JOB_ID.test(job) || !/^(grpo|ftjob):/.test(job)) return null
    const folder = RunFolder.at(this.setup.storage, job)
    if (!folder.exists) return null
    this.#requireBase(job, folder)
    const checkpoints = folder.checkpoints()
    const found = findCheckpoint(checkpoints, checkpoint)
    if (found) return { policy: `${job}@${found.checkpoint_name} of ${found.timestamp}`, dir: found.checkpoint_dir }
    throw new HttpError(404, `Job ${job} has no checkpoint "${checkpoint}". ${checkpointList(checkpoints)}`, {
      code: 'model_not_found',
      param: 'model',
    })
  }

  /** What a run has, oldest first. @throws HttpError 404 for a run that there is not */
  checkpoints(name: string): { job: string; checkpoints: CheckpointRecord[] } {
    const job = bareModelName(name)
    const folder = JOB_ID.test(job) ? RunFolder.at(this.setup.storage, job) : null
    if (folder?.exists) return { job, checkpoints: folder.checkpoints() }
    throw new HttpError(404, `There is no run "${job}" in ${this.setup.storage}.`, { code: 'job_not_found' })
  }

  /** All names that stand for something saved: adapters, then every run's checkpoints, with the run itself where it has any. */
  names(): string[] {
    const runs = RunFolder.all(this.setup.storage).flatMap((id) => this.#namesOf(id))
    return [...(this.setup.adapters?.keys() ?? []), ...runs]
  }

  /** Opens the policy in the engine where it isn't; others that nobody asked of late make room. */
  async open({ policy, dir }: SavedPolicy): Promise<void> {
    let entry = this.#opened.get(policy)
    if (!entry) {
      const opening = this.setup.engine.openSaved(policy, dir)
      entry = { opening, parameters: 0, asked: Date.now() }
      this.#opened.set(policy, entry)
    }
    entry.asked = Date.now()
    try {
      entry.parameters = (await entry.opening).parameters
    } catch (error) {
      this.#opened.delete(policy)
      throw error
    }
    this.#makeRoom()
  }

  #makeRoom(): void {
    const all = [...this.#opened].sort(([, a], [, b]) => a.asked - b.asked)
    let parameters = all.reduce((sum, [, entry]) => sum + entry.parameters, 0)
    for (const [policy, entry] of all) {
      const crowded = this.#opened.size > OPEN_AT_MOST || parameters > 2 * this.setup.model.parameters
      if (!crowded || this.#opened.size === 1 || Date.now() - entry.asked < OPEN_AT_LEAST_MS) return
      this.#opened.delete(policy)
      parameters -= entry.parameters
      void this.setup.engine.closePolicy(policy).catch(() => {}) // the engine was closed: so is the policy
    }
  }

  #namesOf(id: string): readonly string[] {
    const folder = RunFolder.at(this.setup.storage, id)
    const changed = statSync(join(folder.path, 'checkpoints'), { throwIfNoEntry: false })?.mtimeMs ?? 0
    const known = this.#runs.get(id)
    if (known?.changed === changed) return known.names
    const names = this.#isOnBase(folder) ? namesOf(id, folder.checkpoints()) : []
    this.#runs.set(id, { changed, names })
    return names
  }

  #isOnBase(folder: RunFolder): boolean {
    const { base, base_path: path, model } = folder.config() as { base?: string; base_path?: string; model?: string }
    const { modelNames, basePath } = this.setup
    return modelNames.includes(base ?? model ?? '') || (path !== undefined && path === basePath)
  }

  #requireBase(job: string, folder: RunFolder): void {
    if (this.#isOnBase(folder)) return
    const { base, model } = folder.config() as { base?: string; model?: string }
    throw new HttpError(
      404,
      `Job ${job} was trained on "${base ?? model}"; this server has "${this.setup.modelNames[0]}". Start one with --model ${base ?? model}.`,
      { code: 'model_not_found', param: 'model' },
    )
  }
}

function namesOf(id: string, checkpoints: readonly CheckpointRecord[]): string[] {
  if (checkpoints.length === 0) return []
  const own = checkpoints.map(({ checkpoint_name }) => checkpoint_name)
  const short = ['last', ...(bestCheckpoint(checkpoints) ? ['best'] : [])].filter((name) => !own.includes(name))
  return [id, ...[...own, ...short].map((name) => `${id}@${name}`)]
}
