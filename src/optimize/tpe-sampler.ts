// The Tree-structured Parzen Estimator over categorical parameters: of 24 guesses near the best trials, the one least like the others.
// Multivariate TPE as Optuna's TPESampler(seed, multivariate=True) has it, with numpy's random stream, so that a seed picks the same trials.

import { PythonRandom } from '../program'

/** A choice for each parameter. */
export type Choices = Readonly<Record<string, number>>

/** Proposes what to try next, and learns from the scores. */
export interface ParameterSampler {
  /** @param space the number of choices of each parameter, in the order in which they are asked for */
  suggest(space: Choices): Choices
  /** A finished trial; the higher the score the better. */
  tell(choices: Choices, score: number): void
}

/** Trials before the estimator is asked; until then choices are random. */
const STARTUP_TRIALS = 10
const GUESSES = 24
const PRIOR_WEIGHT = 1
/** Newest trials that count in full where there are more; the weight of older ones falls off evenly. */
const FULL_WEIGHT_TRIALS = 25

interface Trial {
  readonly number: number
  readonly choices: Choices
  readonly score: number
}

export class TPESampler implements ParameterSampler {
  readonly #trials: Trial[] = []
  readonly #startup: PythonRandom
  readonly #random: PythonRandom

  constructor(seed: number) {
    this.#startup = PythonRandom.fromWord(seed)
    this.#random = PythonRandom.fromWord(seed)
  }

  tell(choices: Choices, score: number): void {
    this.#trials.push({ number: this.#trials.length, choices, score })
  }

  suggest(space: Choices): Choices {
    const single = (name: string) => space[name]! < 2
    const names = Object.keys(space)
    const open = names.filter((name) => !single(name))
    const chosen: Record<string, number> = Object.fromEntries(names.filter(single).map((name) => [name, 0]))
    if (this.#trials.length < STARTUP_TRIALS) for (const name of open) chosen[name] = randomChoice(space[name]!, this.#startup)
    else if (open.length > 0) Object.assign(chosen, this.#estimate(space, open.sort()))
    return Object.fromEntries(names.map((name) => [name, chosen[name]!]))
  }

  /** The guess with the highest l(x) / g(x): l describes the best tenth of the trials, g the rest. */
  #estimate(space: Choices, names: readonly string[]): Choices {
    const best = Math.min(Math.ceil(0.1 * this.#trials.length), 25)
    const ranked = [...this.#trials].sort((a, b) => b.score - a.score || a.number - b.number)
    const inOrder = (trials: Trial[]) => trials.sort((a, b) => a.number - b.number)
    const good = new Mixture(inOrder(ranked.slice(0, best)), names, space)
    const rest = new Mixture(inOrder(ranked.slice(best)), names, space)
    const guesses = good.sample(this.#random, GUESSES)
    const gain = guesses.map((guess) => good.logDensity(guess) - rest.logDensity(guess))
    const chosen = guesses[gain.indexOf(Math.max(...gain))]!
    return Object.fromEntries(names.map((name, i) => [name, chosen[i]!]))
  }
}

/** The largest of one random number a choice. */
function randomChoice(count: number, random: PythonRandom): number {
  const draws = Array.from({ length: count }, () => random.random())
  return draws.indexOf(Math.max(...draws))
}

/** One kernel a trial, and one that knows nothing; a kernel is a product of categorical distributions. */
class Mixture {
  /** [kernels], summing to 1. */
  readonly #weights: readonly number[]
  /** [parameters][kernels][choices], rows summing to 1. */
  readonly #kernels: readonly (readonly (readonly number[])[])[]

  constructor(trials: readonly Trial[], names: readonly string[], space: Choices) {
    const weights = [...trialWeights(trials.length), PRIOR_WEIGHT]
    const total = weights.reduce((sum, weight) => sum + weight, 0)
    this.#weights = weights.map((weight) => weight / total)
    const base = PRIOR_WEIGHT / weights.length
    this.#kernels = names.map((name) =>
      weights.map((_, k) => {
        const seen = trials[k]?.choices[name]
        const row = Array.from({ length: space[name]! }, (_, choice) => base + (choice === seen ? 1 : 0))
        const sum = row.reduce((a, b) => a + b, 0)
        return row.map((value) => value / sum)
      }),
    )
  }

  /** [count][parameters] choices: first the kernels of all, then parameter by parameter, as numpy draws them. */
  sample(random: PythonRandom, count: number): number[][] {
    const kernels = Array.from({ length: count }, () => firstAbove(this.#weights, random.random()))
    const columns = this.#kernels.map((rows) => kernels.map((kernel) => firstAbove(rows[kernel]!, random.random())))
    return kernels.map((_, i) => columns.map((column) => column[i]!))
  }

  logDensity(choices: readonly number[]): number {
    const logs = this.#weights.map(
      (weight, k) => this.#kernels.reduce((sum, rows, p) => sum + Math.log(rows[k]![choices[p]!]!), 0) + Math.log(weight),
    )
    const top = Math.max(...logs)
    return Math.log(logs.reduce((sum, log) => sum + Math.exp(log - top), 0)) + top
  }
}

/** 1 each; of 25 or more the older ones less, down to 1 / count. */
function trialWeights(count: number): number[] {
  if (count < FULL_WEIGHT_TRIALS) return Array.from({ length: count }, () => 1)
  const ramp = count - FULL_WEIGHT_TRIALS
  const low = 1 / count
  return Array.from({ length: count }, (_, i) => {
    if (i >= ramp) return 1
    return ramp === 1 ? low : low + (i * (1 - low)) / (ramp - 1)
  })
}

/** The first index whose cumulative probability exceeds `target`. */
function firstAbove(probabilities: readonly number[], target: number): number {
  let sum = 0
  for (const [i, probability] of probabilities.entries()) {
    sum += probability
    if (target < sum) return i
  }
  return probabilities.length - 1
}
