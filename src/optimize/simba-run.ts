// One compile of SIMBA: sample, compare, grow, judge, and at the end choose among the winners of the steps.

import { OptionError } from '../errors'
import { type BaseLM, currentSettings, type Example, type Module, PythonRandom } from '../program'
import { pyRound } from '../program/python-text'
import { checkNotAllFailed } from './all-failed'
import type { CandidateSearch, TrialLog } from './candidates'
import { limited } from './limited'
import { NumpyRandom } from './numpy-random'
import type { SIMBACompileOptions, SimbaSettings } from './simba-options'
import { appendDemo, appendRule, type BatchRange, type Bucket, type Strategy, type StrategyOutcome } from './simba-strategies'
import { runTrajectory, type Trajectory } from './simba-trajectory'

/** What became of one bucket; in `trialLogs[step].buckets`. */
export interface SimbaBucketLog extends Omit<Bucket, 'runs'> {
  readonly strategy: Strategy['name']
  /** Demos dropped from every predictor first. */
  readonly dropped: number
  readonly outcome: StrategyOutcome | { readonly failed: string }
}

/** Programs are named by their number; 0 is the student. */
export class SimbaRun<P extends Module> {
  readonly #programs: P[]
  /** Minibatch scores by program; the student's own are never entered, so it counts as 0, as in DSPy. */
  readonly #scores: number[][] = [[]]
  readonly #winners: P[]
  readonly #random: PythonRandom
  readonly #numpy: NumpyRandom
  readonly #strategies: readonly Strategy[]
  readonly #trainset: readonly Example[]
  readonly #search: CandidateSearch<P>

  constructor(
    readonly options: SimbaSettings,
    student: P,
    { trainset, search, seed = 0 }: SIMBACompileOptions<P> & { search: CandidateSearch<P> },
  ) {
    const { promptModel, demoInputFieldMaxlen } = options
    this.#programs = [student.deepcopy()]
    this.#winners = [this.#programs[0]!]
    this.#random = new PythonRandom(seed)
    this.#numpy = new NumpyRandom(seed)
    this.#trainset = trainset
    this.#search = search
    const rule = appendRule(() => promptModel ?? currentSettings().lm)
    this.#strategies = options.maxDemos > 0 ? [appendDemo(demoInputFieldMaxlen), rule] : [rule]
  }

  async run(): Promise<P> {
    const { maxSteps, bsize } = this.options
    const order = this.#trainset.map((_, i) => i)
    this.#random.shuffle(order)
    for (let step = 0, from = 0; step < maxSteps; step++, from += bsize) {
      if (from + bsize > order.length) {
        this.#random.shuffle(order)
        from = 0
      }
      await this.#step(
        step,
        order.slice(from, from + bsize).map((i) => this.#trainset[i]!),
      )
    }
    return this.#finish()
  }

  async #step(step: number, batch: readonly Example[]): Promise<void> {
    const of = `step ${step + 1} of ${this.options.maxSteps}`
    this.#search.note(`${of}: running ${batch.length} examples ${this.options.numCandidates} times`)
    const runs = await this.#sample(batch)
    if (step === 0) checkNotAllFailed(runs.map(({ error }) => error))
    const scores = runs.map((run) => Number(run.score))
    const range = { percentile10: percentile(scores, 0.1), percentile90: percentile(scores, 0.9) }
    const log: TrialLog & { buckets: SimbaBucketLog[] } = { baseline: mean(scores), buckets: [] }
    this.#search.trialLogs[step] = log
    this.#search.note(`${of}: growing new programs`)
    const grown = await this.#grow(sortedBuckets(runs, batch.length), range, log.buckets)
    this.#search.note(`${of}: scoring ${grown.length} new programs`)
    await this.#judge(grown, batch, { step, log })
  }

  /** Every example is run once by each of the resampling models, each time with a program drawn by its score. */
  async #sample(batch: readonly Example[]): Promise<Trajectory[]> {
    const top = this.#topAndBaseline()
    const jobs = this.#models().flatMap((model) =>
      batch.map((example) => {
        const program = this.#programs[this.#draw(top, this.options.temperatureForSampling)]!.deepcopy()
        program.setLm(model)
        return { program, example }
      }),
    )
    return this.#runAll(jobs)
  }

  /** The program's language model at temperature 1, told apart by rollout ids; a teacher's comes first. */
  #models(): BaseLM[] {
    const lm = this.#programs[0]!.getLm() ?? currentSettings().lm
    if (!lm) throw new OptionError('No LM is loaded. Configure one first, or give the program one with setLm.')
    const start = lm.options.rolloutId ?? 0
    const { teacherSettings, numCandidates } = this.options
    return Array.from({ length: numCandidates }, (_, i) =>
      i === 0 && teacherSettings
        ? (teacherSettings.lm ?? lm).copy({ rolloutId: start })
        : lm.copy({ rolloutId: start + i, temperature: 1 }),
    )
  }

  #runAll(jobs: readonly { program: P; example: Example }[]): Promise<Trajectory[]> {
    const threads = this.options.numThreads ?? currentSettings().numThreads
    return limited(jobs, threads, ({ program, example }) => runTrajectory(program, example, this.options.metric))
  }

  /** New programs from the buckets in turn, each by a strategy drawn at random. A strategy that skips still counts, as in DSPy. */
  async #grow(buckets: readonly Bucket[], range: BatchRange, logs: SimbaBucketLog[]): Promise<P[]> {
    const grown: P[] = []
    for (const bucket of buckets) {
      const source = this.#draw(this.#topAndBaseline(), this.options.temperatureForCandidates)
      const program = this.#programs[source]!.deepcopy()
      const dropped = this.#dropDemos(program)
      const strategy = this.#random.choice(this.#strategies)
      const outcome = await tryStrategy(() => strategy.apply(bucket, program, range))
      const { runs: _, ...stats } = bucket
      logs.push({ ...stats, strategy: strategy.name, dropped, outcome })
      if (!('failed' in outcome)) grown.push(program)
      if (grown.length > this.options.numCandidates) break
    }
    return grown
  }

  /** Drops a Poisson number of demos, at least one where a predictor is full. Answers the number. */
  #dropDemos(program: Module): number {
    const { maxDemos } = this.options
    const limit = maxDemos > 0 ? maxDemos : 3
    const predictors = program.predictors()
    const count = Math.max(0, ...predictors.map(({ demos }) => demos.length))
    const wanted = Math.max(this.#numpy.poisson(count / limit), count >= limit ? 1 : 0)
    const dropped = Array.from({ length: Math.min(wanted, count) }, () => this.#random.randrange(count))
    for (const predictor of predictors) predictor.demos = predictor.demos.filter((_, i) => !dropped.includes(i))
    return dropped.length
  }

  async #judge(grown: readonly P[], batch: readonly Example[], { step, log }: { step: number; log: TrialLog }): Promise<void> {
    const runs = await this.#runAll(grown.flatMap((program) => batch.map((example) => ({ program, example }))))
    const scores = grown.map((_, i) => runs.slice(i * batch.length, (i + 1) * batch.length).map((run) => Number(run.score)))
    const means = scores.map(mean)
    log['scores'] = means
    for (const [i, program] of grown.entries()) {
      this.#programs.push(program)
      this.#scores.push(scores[i]!)
      const label = `step ${step + 1}, program ${this.#programs.length - 1}`
      this.#search.add({ label, program, score: 100 * means[i]!, full: false, subscores: scores[i]! })
    }
    if (grown.length > 0) this.#winners.push(grown[means.indexOf(Math.max(...means))]!.deepcopy())
  }

  /** The student and winners spread evenly over the steps, on the whole trainset. */
  async #finish(): Promise<P> {
    const { numCandidates } = this.options
    const last = this.#winners.length - 1
    const steps = Array.from({ length: numCandidates + 1 }, (_, i) => pyRound((i * last) / numCandidates, 0))
    const chosen = [...new Set(steps)]
    const finalists = chosen.map((winner) => this.#winners[winner]!.deepcopy())
    this.#search.note(`scoring ${finalists.length} programs on the whole trainset`)
    const size = this.#trainset.length
    const runs = await this.#runAll(finalists.flatMap((program) => this.#trainset.map((example) => ({ program, example }))))
    for (const [i, program] of finalists.entries()) {
      const subscores = runs.slice(i * size, (i + 1) * size).map((run) => run.score)
      const score = mean(subscores.map(Number))
      const label = chosen[i] === 0 ? 'as given' : `winner of step ${chosen[i]}`
      this.#search.add({ label, program, score: 100 * score, subscores })
      if (i > 0) this.#search.trialLogs[i - 1]!['trainScore'] = score
    }
    return this.#search.best!.program
  }

  /** The best programs by their mean; the student takes the last place unless it is among them. */
  #topAndBaseline(): number[] {
    const means = this.#scores.map((scores) => (scores.length > 0 ? mean(scores) : 0))
    const top = means
      .map((_, i) => i)
      .sort((a, b) => means[b]! - means[a]!)
      .slice(0, this.options.numCandidates)
    if (!top.includes(0)) top[top.length - 1] = 0
    return top
  }

  /** A program, with a chance proportional to e^(mean / temperature). */
  #draw(programs: readonly number[], temperature: number): number {
    const means = programs.map((program) => (this.#scores[program]!.length > 0 ? mean(this.#scores[program]!) : 0))
    const top = Math.max(...means) // only differences count; without it e^x overflows for large scores
    const weights = means.map((value) => Math.exp((value - top) / temperature))
    return this.#random.choices(programs, { weights })[0]!
  }
}

async function tryStrategy(apply: () => Promise<StrategyOutcome>): Promise<StrategyOutcome | { failed: string }> {
  try {
    return await apply()
  } catch (error) {
    currentSettings().signal?.throwIfAborted()
    const failed = error instanceof Error ? error.message : String(error)
    currentSettings().onWarning?.(`SIMBA makes no program of a bucket: ${failed}`)
    return { failed }
  }
}

/** Runs by example, each bucket best first; first the examples whose runs differ most, then the higher scores. */
function sortedBuckets(runs: readonly Trajectory[], batch: number): Bucket[] {
  const buckets = Array.from({ length: batch }, (_, example) => {
    const own = runs.filter((_, i) => i % batch === example).sort((a, b) => Number(b.score) - Number(a.score))
    const scores = own.map((run) => Number(run.score))
    const [maxScore, minScore] = [scores[0]!, scores.at(-1)!]
    return { runs: own, maxScore, minScore, maxToMinGap: maxScore - minScore, maxToAvgGap: maxScore - mean(scores) }
  })
  return buckets.sort((a, b) => b.maxToMinGap - a.maxToMinGap || b.maxScore - a.maxScore || b.maxToAvgGap - a.maxToAvgGap)
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length
}

/** numpy.percentile: between the two nearest values in order. */
function percentile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b)
  const place = (sorted.length - 1) * share
  const [low, high] = [sorted[Math.floor(place)]!, sorted[Math.ceil(place)]!]
  const t = place - Math.floor(place)
  return t < 0.5 ? low + (high - low) * t : high - (high - low) * (1 - t)
}
