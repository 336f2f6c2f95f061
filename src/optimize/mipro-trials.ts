// The third step of MIPROv2: which instruction and which demos for each predictor? Trials suggested by a sampler, scored on minibatches
// or on all of the validation set; what does best on minibatches is scored in full now and then.

import { currentSettings, type Demo, Evaluate, type Example, type Metric, type Module, type PythonRandom } from '../program'
import { checkNotAllFailed } from './all-failed'
import type { CandidateSearch } from './candidates'
import { drawMinibatch } from './mipro-settings'
import type { Choices, ParameterSampler } from './tpe-sampler'

export interface TrialsOptions<P extends Module> {
  readonly program: P
  /** [predictors][candidates]; the first is the program's own. */
  readonly instructions: readonly (readonly string[])[]
  /** [predictors][candidates]; null: the program stays without demos. */
  readonly demoSets: readonly (readonly (readonly Demo[])[])[] | null
  readonly valset: readonly Example[]
  readonly metric: Metric
  readonly numThreads?: number
  readonly maxErrors?: number
  readonly provideTraceback?: boolean
  readonly sampler: ParameterSampler
  /** Shared with the steps before. */
  readonly random: PythonRandom
  readonly numTrials: number
  readonly minibatch: boolean
  readonly minibatchSize: number
  /** Trials between two full evaluations. */
  readonly fullEvery: number
  /** Told of every program that was scored, by its trial; −1 for the program as it came. */
  readonly onScored?: (program: Module, trial: number, full: boolean) => Promise<unknown>
}

/** The scores of one choice of parameters. */
interface Combination<P> {
  readonly program: P
  readonly choices: Choices
  readonly scores: number[]
  full: boolean
}

export class MiproTrials<P extends Module> {
  readonly #combinations = new Map<string, Combination<P>>()
  #evalCalls = 0
  #failures: unknown[] = []

  constructor(
    readonly search: CandidateSearch<P>,
    readonly options: TrialsOptions<P>,
  ) {}

  /** Fills the search. @throws the last error when not a single evaluation succeeded */
  async run(): Promise<void> {
    const { program, sampler, numTrials } = this.options
    const space = this.space()
    const own = program.deepcopy()
    const score = await this.score(own, { trial: 1, label: 'as it is', full: true })
    await this.options.onScored?.(own, -1, true)
    sampler.tell(Object.fromEntries(Object.keys(space).map((name) => [name, 0])), score)
    let trial = 2 // full evaluations take numbers too, as in DSPy's logs
    for (let i = 0; i < numTrials; i++) {
      this.search.signal?.throwIfAborted()
      await this.tryNext(trial, space)
      const due = (i + 1) % this.options.fullEvery === 0 || i === numTrials - 1
      if (this.options.minibatch && due && (await this.scoreBestInFull(trial + 1))) trial++
      trial++
    }
    if (this.#failures.length === this.search.candidates.length) throw this.#failures.at(-1)
  }

  /** Choices of each parameter, in the order of the predictors. */
  private space(): Choices {
    const { instructions, demoSets } = this.options
    const entries = instructions.flatMap((own, i) => [
      [`${i}_predictor_instruction`, own.length] as const,
      ...(demoSets ? [[`${i}_predictor_demos`, demoSets[i]!.length] as const] : []),
    ])
    return Object.fromEntries(entries)
  }

  private async tryNext(trial: number, space: Choices): Promise<void> {
    const { sampler, minibatch } = this.options
    const choices = sampler.suggest(space)
    this.search.trialLogs[trial] = { ...choices }
    const program = this.assemble(choices)
    const score = await this.score(program, { trial, label: labelOf(choices), full: !minibatch })
    await this.options.onScored?.(program, trial, !minibatch)
    sampler.tell(choices, score)
    const key = JSON.stringify(choices)
    const known = this.#combinations.get(key)
    if (known) known.scores.push(score)
    else this.#combinations.set(key, { program, choices, scores: [score], full: false })
  }

  /** The program with the chosen instructions and demos. */
  private assemble(choices: Choices): P {
    const { program, instructions, demoSets } = this.options
    const copy = program.deepcopy()
    for (const [i, predictor] of copy.predictors().entries()) {
      predictor.signature = predictor.signature.withInstructions(instructions[i]![choices[`${i}_predictor_instruction`]!]!)
      if (demoSets) predictor.demos = [...demoSets[i]![choices[`${i}_predictor_demos`]!]!]
    }
    return copy
  }

  /** Scores the combination with the best mean on minibatches that has not been scored in full. Answers false when there is none left. */
  private async scoreBestInFull(trial: number): Promise<boolean> {
    let best: { readonly combination: Combination<P>; readonly mean: number } | null = null
    for (const combination of this.#combinations.values()) {
      const mean = combination.scores.reduce((sum, score) => sum + score, 0) / combination.scores.length
      if (!combination.full && (best === null || mean > best.mean)) best = { combination, mean }
    }
    if (!best) return false
    const { program, choices } = best.combination
    const score = await this.score(program, { trial, label: `${labelOf(choices)}, all examples`, full: true })
    await this.options.onScored?.(program, trial, true)
    this.options.sampler.tell(choices, score)
    best.combination.full = true
    return true
  }

  /** Files a program with its score. An evaluation that fails counts 0, as in DSPy. */
  private async score(program: P, { trial, label, full }: { trial: number; label: string; full: boolean }): Promise<number> {
    const { valset, metric, numThreads, maxErrors, provideTraceback, random, minibatchSize } = this.options
    const whole = full || minibatchSize >= valset.length
    const devset = whole ? valset : drawMinibatch(valset, minibatchSize, random)
    const limits = { ...(numThreads ? { numThreads } : {}), ...(maxErrors === undefined ? {} : { maxErrors }) }
    const evaluate = new Evaluate({ devset, metric, ...limits, provideTraceback, displayProgress: true, title: label })
    let score = 0
    try {
      const result = await evaluate.call(program)
      checkNotAllFailed(result.results.map(({ cause = null }) => cause))
      score = result.score
    } catch (error) {
      this.search.signal?.throwIfAborted()
      this.#failures.push(error)
      currentSettings().onWarning?.(`Trial ${trial} (${label}) counts 0: ${String(error).split('\n')[0]}`)
    }
    this.#evalCalls += devset.length
    const logged = full ? { fullEvalScore: score, fullEvalProgram: program } : { mbScore: score, mbProgram: program }
    this.search.trialLogs[trial] = { ...this.search.trialLogs[trial], ...logged, totalEvalCallsSoFar: this.#evalCalls }
    this.search.add({ label, program, score, full: whole })
    return score
  }
}

/** 'instruction 2, demos 0'; with several predictors 'instructions 2 1, demos 0 3'. */
function labelOf(choices: Choices): string {
  const of = (kind: string) =>
    Object.entries(choices)
      .filter(([name]) => name.endsWith(kind))
      .map(([, choice]) => choice)
  const part = (word: string, values: number[], plural = word) =>
    values.length === 0 ? [] : [`${values.length > 1 ? plural : word} ${values.join(' ')}`]
  return [...part('instruction', of('_instruction'), 'instructions'), ...part('demos', of('_demos'))].join(', ')
}
