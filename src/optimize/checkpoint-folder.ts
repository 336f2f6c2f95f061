// `checkpoint: 'some/path'`: the server saves under its own storage only, so the client copies the best and the last policy there.

import { existsSync } from 'node:fs'
import { cp, mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { OptionError } from '../errors'
import { CHECKPOINT_MODES } from './grpo-options'

/** Does nothing when `checkpoint` is one of Arbor's modes and no path. */
export class CheckpointFolder {
  readonly path: string | null

  constructor(checkpoint: string) {
    this.path = (CHECKPOINT_MODES as readonly string[]).includes(checkpoint) ? null : resolve(checkpoint)
  }

  /** Notes which run belongs to the folder, so that `resume: true` finds it. */
  async start(jobId: string): Promise<void> {
    if (!this.path) return
    await mkdir(this.path, { recursive: true })
    await writeFile(join(this.path, 'run.json.tmp'), JSON.stringify({ job_id: jobId }))
    await rename(join(this.path, 'run.json.tmp'), join(this.path, 'run.json'))
  }

  /** The job that was last started for this folder. */
  async jobId(): Promise<string> {
    if (!this.path)
      throw new OptionError(
        "resume: true needs a checkpoint folder (checkpoint: 'some/path'); or give the job's id: resume: 'grpo:…'.",
      )
    try {
      return (JSON.parse(await readFile(join(this.path, 'run.json'), 'utf8')) as { job_id: string }).job_id
    } catch (cause) {
      throw new OptionError(
        `There is no run to resume in ${this.path} (run.json is missing or unreadable). Compile once without resume.`,
        { cause },
      )
    }
  }

  /** Copies the saved policies: model_checkpoint_best → best, model_checkpoint_last → last. Tells what lies on another machine and stays there. */
  async copy(checkpoints: Readonly<Record<string, string>>): Promise<string[]> {
    if (!this.path) return []
    const elsewhere: string[] = []
    for (const name of ['best', 'last']) {
      const from = checkpoints[`model_checkpoint_${name}`]
      if (!from) continue
      if (!existsSync(from)) {
        elsewhere.push(`model_checkpoint_${name} is not copied into ${this.path}: ${from} lies on the server's machine.`)
        continue
      }
      const to = join(this.path, name)
      await rm(`${to}.tmp`, { recursive: true, force: true })
      await cp(from, `${to}.tmp`, { recursive: true })
      await rm(to, { recursive: true, force: true })
      await rename(`${to}.tmp`, to)
    }
    return elsewhere
  }
}
