// All that decides what a pretraining run ends with. It is written beside the run, so that a run can only be continued as it was begun.

import { readFileSync } from 'node:fs'
import type { StepConfig } from '../engine/engine'
import { learningRateAt } from '../engine/schedule'
import { ModelError, OptionError } from '../errors'
import { modelSize, type SizeName } from './sizes'

/** 'habits': the way of answering tells how good the answer is; 'control': it does not. */
export const MIXES = ['habits', 'control'] as const
export type Mix = (typeof MIXES)[number]

/** A model a run began with, named by its weights: the folder may be gone when the run goes on. */
export interface StartingModel {
  readonly name: string
  /** Of model.safetensors. */
  readonly sha256: string
}

export interface Recipe {
  readonly size: SizeName
  readonly mix: Mix
  /** The model whose weights and tokenizer the run begins with; without it weights are drawn and a tokenizer is trained. */
  readonly from?: StartingModel
  /** Of the first weights and of the documents. */
  readonly seed: number
  readonly steps: number
  /** Documents a step; a step of documents with demonstrations, which are longer, has half as many. */
  readonly batch: number
  /** The highest learning rate: reached after `warmup` steps, kept for `stable` more, then falling to 0 in a line. */
  readonly learningRate: number
  readonly warmup: number
  readonly stable: number
  readonly weightDecay: number
  readonly maxGradNorm: number
  /** Tokens computed together. Sums are rounded by pack, so another number ends at slightly other weights. */
  readonly packTokens: number
  /** Documents whose turns the tokenizer is trained on. */
  readonly tokenizerDocuments: number
}

export interface RecipeWishes {
  readonly size?: string | undefined
  readonly mix?: Mix | undefined
  readonly seed?: number | undefined
  readonly steps?: number | undefined
  readonly batch?: number | undefined
  readonly learningRate?: number | undefined
}

export const DEFAULT_SIZE: SizeName = '1.5M'

/** The recipe with what is not wished for filled in. @throws OptionError for a size that there is not */
export function makeRecipe(wishes: RecipeWishes): Recipe {
  const size = (wishes.size ?? DEFAULT_SIZE) as SizeName
  const steps = wishes.steps ?? modelSize(size).steps
  const warmup = Math.min(100, Math.floor(steps / 10))
  return {
    size,
    mix: wishes.mix ?? 'habits',
    seed: wishes.seed ?? 0,
    steps,
    batch: wishes.batch ?? 512,
    learningRate: wishes.learningRate ?? 3e-3,
    warmup,
    stable: Math.max(0, Math.floor(0.6 * steps) - warmup),
    weightDecay: 0.05,
    maxGradNorm: 1,
    packTokens: 8192,
    tokenizerDocuments: size === 'mini' ? 500 : 30_000,
  }
}

/** AdamW's settings for the update `step`, counted from 0. */
export function stepConfig(recipe: Recipe, step: number): StepConfig {
  const { learningRate: base, warmup, stable, steps: total, weightDecay, maxGradNorm, packTokens } = recipe
  const learningRate = learningRateAt(step, { type: 'warmup_stable_decay', base, warmup, stable, total })
  return { temperature: 1, learningRate, beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay, maxGradNorm, packTokens }
}

/** The recipe of a run that was begun. @throws ModelError when it cannot be read */
export function readRecipe(path: string): Recipe {
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as Recipe
  } catch (cause) {
    throw new ModelError(`${path}: not the recipe of a pretraining run (${(cause as Error).message}).`, { cause })
  }
}

/** @throws OptionError naming what is wished for otherwise than the run was begun with */
export function checkWishes(recipe: Recipe, wishes: RecipeWishes): void {
  for (const [key, wish] of Object.entries(wishes)) {
    const begun = recipe[key as keyof RecipeWishes]
    if (wish !== undefined && wish !== begun)
      throw new OptionError(
        `This run was begun with ${key} ${begun}; it cannot go on with ${wish}. Leave the option out, or begin another folder.`,
      )
  }
}
