// The checkpoints of one GRPO job: those that a client asks for, and one that the job makes by itself, so that a server that is killed loses minutes.

import type { CheckpointRecord, GRPOStatus } from '../protocol'
import type { RunFolder } from './run-folder'

/** The job's own; every one replaces the one before, and it goes when the job is done. */
export const AUTOSAVE = 'autosave'
const AUTOSAVE_EVERY_MS = 120_000
/** Saving a whole model takes seconds: it may take one fiftieth of the time. */
const LEAST_TIMES_ITS_COST = 50

export interface JobCheckpointsSetup {
  readonly folder: RunFolder
  /** Fills a folder with the policy as it is now. */
  readonly write: (dir: string) => Promise<void>
  /** Of a resumed job, oldest first. */
  readonly earlier: readonly CheckpointRecord[]
  /** 0: after every step. */
  readonly autosaveMs?: number
  readonly log?: (line: string) => void
}

export class JobCheckpoints {
  readonly #saved = new Map<string, CheckpointRecord>()
  #last: string | null = null
  #time = performance.now()
  #cost = 0

  constructor(private readonly setup: JobCheckpointsSetup) {
    for (const checkpoint of setup.earlier) this.#remember(checkpoint)
  }

  /** What a status tells of them. */
  fields(): Pick<GRPOStatus, 'checkpoints' | 'last_checkpoint'> {
    return { checkpoints: Object.fromEntries(this.#saved), last_checkpoint: this.#last }
  }

  get last(): CheckpointRecord | null {
    return this.#last === null ? null : this.#saved.get(this.#last)!
  }

  /** @param step the policy's */
  async save(name: string, metadata: Record<string, unknown> | null, step: number): Promise<void> {
    await this.#save({ name, metadata, step, requested: true })
  }

  /** Saves when the last time is long enough ago. What a client noted with its last checkpoint (its best score so far) still holds. Never throws. */
  async autosave(step: number): Promise<void> {
    const { autosaveMs = AUTOSAVE_EVERY_MS, log } = this.setup
    const started = performance.now()
    const wait = autosaveMs === 0 ? 0 : Math.max(autosaveMs, LEAST_TIMES_ITS_COST * this.#cost)
    if (started - this.#time < wait) return
    try {
      await this.#save({ name: AUTOSAVE, metadata: this.last?.metadata ?? null, step, requested: false })
    } catch (error) {
      log?.(`No ${AUTOSAVE} after step ${step}: ${error instanceof Error ? error.message : String(error)}`)
      this.#time = performance.now()
    }
    this.#cost = performance.now() - started
  }

  /** The job has ended and is saved: its own checkpoint is of no more use. */
  done(): void {
    if (!this.#saved.delete(AUTOSAVE)) return
    this.setup.folder.removeCheckpoint(AUTOSAVE)
  }

  async #save(wish: { name: string; metadata: Record<string, unknown> | null; step: number; requested: boolean }): Promise<void> {
    const { name: checkpoint_name, step: global_step, metadata, requested } = wish
    const record = { checkpoint_name, global_step, requested, metadata, timestamp: Date.now() / 1000 }
    this.#remember(await this.setup.folder.saveCheckpoint(record, this.setup.write))
    this.#time = performance.now()
  }

  #remember(checkpoint: CheckpointRecord): void {
    this.#saved.set(checkpoint.checkpoint_name, checkpoint)
    this.#last = checkpoint.checkpoint_name
  }
}
