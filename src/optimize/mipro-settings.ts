// How large a MIPROv2 run is: its examples, candidates and trials. After DSPy's teleprompt/mipro_optimizer_v2.py.

import { OptionError } from '../errors'
import type { PythonRandom } from '../program'

export type AutoMode = 'light' | 'medium' | 'heavy'

/** Candidates a variable, and examples to judge by. */
export const AUTO_MODES: Readonly<Record<AutoMode, { readonly candidates: number; readonly valSize: number }>> = {
  light: { candidates: 6, valSize: 100 },
  medium: { candidates: 12, valSize: 300 },
  heavy: { candidates: 18, valSize: 1000 },
}

/** An auto run with more validation examples than this judges by minibatches. */
const MINIBATCH_FROM = 50
const MOST_VALIDATION = 1000

export interface RunSize<T> {
  readonly trainset: readonly T[]
  readonly valset: readonly T[]
  readonly numTrials: number
  readonly minibatch: boolean
  /** Instructions a predictor, and demo sets a predictor. */
  readonly numInstructions: number
  readonly numDemoSets: number
}

export interface RunWishes<T> {
  readonly trainset: readonly T[]
  readonly valset?: readonly T[] | undefined
  readonly predictors: number
  /** No demos in the program, so that instructions alone are searched. */
  readonly zeroShot: boolean
  /** null: `numCandidates` and `numTrials` say it. */
  readonly auto: AutoMode | null
  readonly numCandidates?: number | null
  readonly numTrials?: number | undefined
  readonly minibatch: boolean
  readonly random: PythonRandom
}

/** @throws OptionError for wishes that contradict each other or too few examples */
export function chooseRunSize<T>(wishes: RunWishes<T>): RunSize<T> {
  checkWishes(wishes)
  const { auto, zeroShot, random } = wishes
  const sets = splitExamples(wishes.trainset, wishes.valset)
  if (auto === null) {
    const count = wishes.numCandidates!
    return { ...sets, numTrials: wishes.numTrials!, minibatch: wishes.minibatch, numInstructions: count, numDemoSets: count }
  }
  const { candidates, valSize } = AUTO_MODES[auto]
  const valset = drawMinibatch(sets.valset, valSize, random)
  return {
    trainset: sets.trainset,
    valset,
    numTrials: trialsFor(candidates, wishes),
    minibatch: valset.length > MINIBATCH_FROM,
    // Where there are demos to choose from, they are worth more than instructions.
    numInstructions: zeroShot ? candidates : Math.trunc(candidates * 0.5),
    numDemoSets: candidates,
  }
}

/** A random part; all of them, shuffled, when there are no more than `size`. */
export function drawMinibatch<T>(examples: readonly T[], size: number, random: PythonRandom): T[] {
  return random.sample(examples, Math.min(size, examples.length))
}

/** Scorings in all: the program as it is, the trials and, with minibatches, a full one every `fullEvery` trials and at the end. */
export function totalEvaluations(size: { readonly numTrials: number; readonly minibatch: boolean }, fullEvery: number): number {
  const { numTrials, minibatch } = size
  if (!minibatch) return numTrials + 1
  return numTrials + Math.floor(numTrials / fullEvery) + 1 + (numTrials % fullEvery === 0 ? 0 : 1)
}

/** The more variables and candidates, the more trials. */
function trialsFor(candidates: number, { predictors, zeroShot }: { predictors: number; zeroShot: boolean }): number {
  const variables = zeroShot ? predictors : 2 * predictors
  return Math.trunc(Math.max(2 * variables * Math.log2(candidates), 1.5 * candidates))
}

/** Without a valset the last four fifths of the trainset judge, for a good judgement is worth more than many demos. */
function splitExamples<T>(
  trainset: readonly T[],
  valset: readonly T[] | undefined,
): { trainset: readonly T[]; valset: readonly T[] } {
  if (valset !== undefined) {
    if (valset.length === 0) throw new OptionError('The valset is empty: MIPROv2 needs at least one example to judge by.')
    return { trainset, valset }
  }
  if (trainset.length < 2)
    throw new OptionError('MIPROv2 needs at least 2 examples in the trainset to set some apart; or pass a valset.')
  const size = Math.min(MOST_VALIDATION, Math.max(1, Math.trunc(trainset.length * 0.8)))
  const cut = trainset.length - size
  return { trainset: trainset.slice(0, cut), valset: trainset.slice(cut) }
}

function checkWishes<T>(wishes: RunWishes<T>): void {
  const { auto, numCandidates, numTrials } = wishes
  const given = typeof numCandidates === 'number'
  if (auto !== null && !(auto in AUTO_MODES))
    throw new OptionError(`auto must be 'light', 'medium', 'heavy' or null, but it is ${JSON.stringify(auto)}.`)
  if (auto !== null && (given || numTrials !== undefined))
    throw new OptionError(
      `auto: '${auto}' chooses numCandidates and numTrials itself. Leave them out, or set auto: null to choose them.`,
    )
  if (given && !(Number.isInteger(numCandidates) && numCandidates > 0))
    throw new OptionError(`numCandidates must be a whole number from 1 on, but it is ${numCandidates}.`)
  if (auto === null && !given)
    throw new OptionError('With auto: null, say numCandidates: new MIPROv2({ auto: null, numCandidates: 6 }).')
  if (auto === null && numTrials === undefined)
    throw new OptionError(
      `With auto: null, say numTrials: compile(student, { numTrials: ${trialsFor(numCandidates!, wishes)} }) suits ${numCandidates} candidates.`,
    )
}
