// A pretraining run on disk: its recipe, the untrained model, a line a step, checkpoints, and at the end the model.
//   recipe.json  base/  steps.jsonl  checkpoints/step-000100/  model/

import { appendFileSync, existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { writeJson, writeWhole } from '../engine/whole-file'
import { OptionError } from '../errors'
import { type Recipe, readRecipe } from './recipe'

/** A line of steps.jsonl. */
export interface PretrainStep {
  /** From 1. */
  readonly step: number
  /** Mean over the batch's assistant tokens, in nats, before the update. */
  readonly loss: number
  readonly learningRate: number
  /** Before clipping. */
  readonly gradNorm: number
  /** Tokens computed with shared beginnings, what they would be without, and the assistant's among them. */
  readonly tokens: number
  readonly tokensUnshared: number
  readonly trainedTokens: number
  readonly seconds: number
  /** After the update, on documents that no step trains on; where a checkpoint was made. */
  readonly heldOutLoss?: number
}

/** Checkpoints that stay: an older one is there should the newest be hurt. */
const KEPT_CHECKPOINTS = 2

/** What a run writes, and what is left of it when it is cut off while writing. */
const OWN_FILES = /^(recipe\.json|base|steps\.jsonl|checkpoints|loss\.html|loss\.svg|model)(\.partial|\.\d+\.tmp)?$/

export class RunFolder {
  constructor(readonly path: string) {}

  get base(): string {
    return join(this.path, 'base')
  }

  /** The finished model. */
  get model(): string {
    return join(this.path, 'model')
  }

  get finished(): boolean {
    return existsSync(this.model)
  }

  /** The recipe of the run that was begun here; null where none was. */
  recipe(): Recipe | null {
    const path = join(this.path, 'recipe.json')
    return existsSync(path) ? readRecipe(path) : null
  }

  /** Begins a run. @throws OptionError when the folder holds something else */
  begin(recipe: Recipe): void {
    mkdirSync(this.path, { recursive: true })
    if (readdirSync(this.path).length > 0)
      throw new OptionError(`${this.path} is not empty and holds no pretraining run. Choose another folder with --out.`)
    writeJson(join(this.path, 'recipe.json'), recipe)
  }

  /** Takes away what a run has left, and nothing else. */
  clear(): void {
    const names = existsSync(this.path) ? readdirSync(this.path) : []
    for (const name of names.filter((name) => OWN_FILES.test(name))) rmSync(join(this.path, name), { recursive: true })
  }

  /** Makes a folder, whole or not at all, if it is not there: `write` fills a temporary one. */
  async makeOnce(folder: string, write: (temporary: string) => void | Promise<void>): Promise<void> {
    if (existsSync(folder)) return
    const temporary = `${folder}.partial`
    rmSync(temporary, { recursive: true, force: true })
    mkdirSync(temporary, { recursive: true })
    await write(temporary)
    renameSync(temporary, folder)
  }

  /** The newest checkpoint and the steps it holds; null before the first. */
  lastCheckpoint(): { readonly step: number; readonly folder: string } | null {
    const [name] = this.checkpointNames()
    return name === undefined ? null : { step: Number(name.slice('step-'.length)), folder: join(this.path, 'checkpoints', name) }
  }

  async saveCheckpoint(step: number, save: (folder: string) => Promise<void>): Promise<void> {
    const folder = join(this.path, 'checkpoints', `step-${String(step).padStart(6, '0')}`)
    await this.makeOnce(folder, save)
    for (const old of this.checkpointNames().slice(KEPT_CHECKPOINTS))
      rmSync(join(this.path, 'checkpoints', old), { recursive: true })
  }

  /** Newest first. */
  private checkpointNames(): string[] {
    const folder = join(this.path, 'checkpoints')
    const names = existsSync(folder) ? readdirSync(folder) : []
    return names.filter((name) => /^step-\d{6}$/.test(name)).sort((a, b) => (a < b ? 1 : -1))
  }

  /** The lines of the first `count` steps; later ones, which no checkpoint holds, are taken out of the file. */
  takeSteps(count: number): PretrainStep[] {
    const path = join(this.path, 'steps.jsonl')
    if (!existsSync(path)) return []
    const lines = readFileSync(path, 'utf8').split('\n').slice(0, -1) // the last one is empty, or cut off
    const kept = lines.map((line) => JSON.parse(line) as PretrainStep).filter(({ step }) => step <= count)
    writeWhole(path, kept.map((line) => `${JSON.stringify(line)}\n`).join(''))
    return kept
  }

  addStep(step: PretrainStep): void {
    appendFileSync(join(this.path, 'steps.jsonl'), `${JSON.stringify(step)}\n`)
  }
}
