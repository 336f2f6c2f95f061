// MIPROv2: bootstraps demo sets, lets a model propose instructions, and searches for the best combination of both.
// After DSPy's teleprompt/mipro_optimizer_v2.py; demo-sets.ts, grounded-proposer.ts and mipro-trials.ts are its three steps.

import { OptionError } from '../errors'
import {
  type BaseLM,
  context,
  currentSettings,
  type Demo,
  type Metric,
  type Module,
  PythonRandom,
  type Settings,
} from '../program'
import { CandidateSearch, checkTrainset, type Optimized, type PromptCompileOptions } from './candidates'
import { createDemoSets } from './demo-sets'
import { GroundedProposer } from './grounded-proposer'
import { AUTO_MODES, type AutoMode, chooseRunSize, type RunSize, totalEvaluations } from './mipro-settings'
import { MiproTrials } from './mipro-trials'
import { saveCandidate } from './save-candidate'
import { type ParameterSampler, TPESampler } from './tpe-sampler'

export interface MIPROv2Options {
  readonly metric: Metric
  /** Writes the instructions; default: the configured model, else the student's. */
  readonly promptModel?: BaseLM | null
  /** Runs the program where its predictors have no model of their own; default: the configured one. */
  readonly taskModel?: BaseLM | null
  readonly teacherSettings?: Partial<Settings>
  /** Both 0: instructions alone are searched. */
  readonly maxBootstrappedDemos?: number
  readonly maxLabeledDemos?: number
  /** How large a run; null: `numCandidates` here and `numTrials` at compile. */
  readonly auto?: AutoMode | null
  readonly numCandidates?: number | null
  readonly numThreads?: number
  readonly maxErrors?: number | null
  readonly seed?: number
  /** Temperature at which instructions are written. */
  readonly initTemperature?: number
  /** Folder that gets the saved state of every program that was scored. */
  readonly logDir?: string | null
  readonly metricThreshold?: number | null
}

export interface MIPROv2CompileOptions<P extends Module = Module> extends PromptCompileOptions<P> {
  readonly numTrials?: number
  readonly maxBootstrappedDemos?: number
  readonly maxLabeledDemos?: number
  /** 0 stands for the constructor's, as in DSPy. */
  readonly seed?: number
  /** Judge by random parts of the valset; an auto mode decides itself. */
  readonly minibatch?: boolean
  readonly minibatchSize?: number
  /** Minibatch trials between two full evaluations. */
  readonly minibatchFullEvalSteps?: number
  readonly programAwareProposer?: boolean
  readonly dataAwareProposer?: boolean
  readonly viewDataBatchSize?: number
  readonly tipAwareProposer?: boolean
  readonly fewshotAwareProposer?: boolean
  readonly provideTraceback?: boolean
  /** What the proposer is told of the program; default: the source of its class. */
  readonly programCode?: string
  /** Suggests the trials; default: TPE. */
  readonly sampler?: ParameterSampler
}

/** Demos gathered to be shown to the proposer when the program itself is to stay without. */
const DEMOS_IN_CONTEXT = 3

/**
 * Instructions that a model proposes after a look at data and program, and demos, searched together.
 * @example
 * const optimizer = new dspy.MIPROv2({ metric, auto: 'light' })
 * const better = await optimizer.compile(student, { trainset, valset })
 */
export class MIPROv2 {
  readonly options: MIPROv2Options
  /** The search of the last compile; its candidates are here also when compile throws. */
  search: CandidateSearch<Module> | null = null

  constructor(options: MIPROv2Options) {
    if (typeof options?.metric !== 'function')
      throw new OptionError('MIPROv2 needs a metric: new MIPROv2({ metric: (example, prediction) => … }).')
    const { auto } = options
    if (typeof auto === 'string' && !(auto in AUTO_MODES))
      throw new OptionError(`auto must be 'light', 'medium', 'heavy' or null, but it is '${auto}'.`)
    this.options = options
  }

  /**
   * The program with the best score on the whole validation set; the program as it came is one of the candidates.
   * @throws OptionError for options that contradict each other or too few examples; ArborError when too many examples fail
   */
  async compile<P extends Module>(student: P, options: MIPROv2CompileOptions<P>): Promise<Optimized<P>> {
    checkTrainset(options.trainset, 'MIPROv2')
    const plan = this.plan(student, options)
    const total = totalEvaluations(plan.size, plan.fullEvery)
    const search = new CandidateSearch<P>({ title: 'MIPROv2', total, signal: options.signal })
    this.search = search
    return search.run(async () => {
      const program = student.deepcopy()
      const step = { search, plan, options }
      const demoSets = await this.underTaskModel(() => this.bootstrap(program, step))
      const instructions = await this.proposeInstructions(program, { ...step, demoSets })
      const trials = this.trials(program, { ...step, demoSets, instructions })
      await this.underTaskModel(() => trials.run())
      return null
    })
  }

  /** Everything that is decided before the first model call. One random stream serves all steps, in DSPy's order. */
  private plan<P extends Module>(student: P, options: MIPROv2CompileOptions<P>): Plan<P> {
    const { auto = 'light', numCandidates, seed: ownSeed = 9 } = this.options
    const seed = options.seed ? options.seed : ownSeed
    const random = new PythonRandom(seed)
    const maxBootstrappedDemos = options.maxBootstrappedDemos ?? this.options.maxBootstrappedDemos ?? 4
    const maxLabeledDemos = options.maxLabeledDemos ?? this.options.maxLabeledDemos ?? 4
    const zeroShot = maxBootstrappedDemos === 0 && maxLabeledDemos === 0
    const { trainset, valset, numTrials, minibatch = true, minibatchSize = 35, minibatchFullEvalSteps: fullEvery = 5 } = options
    const predictors = student.predictors().length
    const size = chooseRunSize({ trainset, valset, predictors, zeroShot, auto, numCandidates, numTrials, minibatch, random })
    if (size.minibatch && minibatchSize > size.valset.length)
      throw new OptionError(
        `A minibatch of ${minibatchSize} is larger than the valset of ${size.valset.length}: set minibatchSize, or minibatch: false.`,
      )
    if (!(Number.isInteger(fullEvery) && fullEvery > 0))
      throw new OptionError(`minibatchFullEvalSteps must be a whole number from 1 on, but it is ${fullEvery}.`)
    const promptModel = this.options.promptModel ?? currentSettings().lm ?? student.getLm()
    if (!promptModel) throw new OptionError('MIPROv2 needs a model: pass promptModel, or dspy.configure({ lm }).')
    return { seed, random, size, zeroShot, maxBootstrappedDemos, maxLabeledDemos, minibatchSize, fullEvery, promptModel }
  }

  private async underTaskModel<T>(run: () => Promise<T>): Promise<T> {
    const { taskModel } = this.options
    return taskModel ? context({ lm: taskModel }, run) : run()
  }

  /** Step 1. */
  private bootstrap<P extends Module>(program: P, { search, plan, options }: Step<P>): Promise<Demo[][][]> {
    const { metric, metricThreshold, teacherSettings, maxErrors } = this.options
    const { size, zeroShot, random } = plan
    return createDemoSets(program, {
      trainset: size.trainset,
      teacher: options.teacher,
      signal: search.signal,
      count: size.numDemoSets,
      random,
      bootstrap: {
        ...{ metric, metricThreshold, teacherSettings, maxErrors },
        maxBootstrappedDemos: zeroShot ? DEMOS_IN_CONTEXT : plan.maxBootstrappedDemos,
        maxLabeledDemos: zeroShot ? 0 : plan.maxLabeledDemos,
      },
      onSet: (index) => search.note(`demo set ${index + 1} of ${size.numDemoSets}`),
    })
  }

  /** Step 2: [predictors][candidates]. The first candidate is always the instruction there is. */
  private async proposeInstructions<P extends Module>(
    program: P,
    { search, plan, options, demoSets }: Step<P> & { readonly demoSets: Demo[][][] },
  ): Promise<string[][]> {
    search.note('looking at the data')
    const proposer = await GroundedProposer.create({
      program,
      trainset: plan.size.trainset,
      promptModel: plan.promptModel,
      random: plan.random,
      programAware: options.programAwareProposer,
      useDatasetSummary: options.dataAwareProposer,
      useTaskDemos: options.fewshotAwareProposer,
      useTip: options.tipAwareProposer,
      viewDataBatchSize: options.viewDataBatchSize,
      initTemperature: this.options.initTemperature,
      programCode: options.programCode,
    })
    const names = program.namedPredictors().map(([name]) => name)
    const proposed = await proposer.propose({
      demoSets,
      count: plan.size.numInstructions,
      onProposal: (i, index) => search.note(`instruction ${index + 1} of ${plan.size.numInstructions} for ${names[i]}`),
    })
    const written = proposed.map((own) => own.slice(1).flatMap((text) => (text === null ? [] : [text])))
    if (plan.zeroShot && plan.size.numInstructions > 1 && written.every((own) => own.length === 0))
      throw new OptionError(
        `The prompt model wrote no instruction that can be read, so there is nothing to search. ${search.notes.at(-1) ?? ''} Pass a stronger promptModel, or allow demos.`,
      )
    return program.predictors().map(({ signature }, i) => [signature.instructions, ...written[i]!])
  }

  /** Step 3. */
  private trials<P extends Module>(
    program: P,
    { search, plan, options, demoSets, instructions }: Step<P> & { demoSets: Demo[][][]; instructions: string[][] },
  ): MiproTrials<P> {
    const { metric, numThreads, maxErrors, logDir } = this.options
    const { valset, numTrials, minibatch } = plan.size
    const { random, minibatchSize, fullEvery } = plan
    return new MiproTrials(search, {
      ...{ program, instructions, demoSets: plan.zeroShot ? null : demoSets },
      ...{ valset, metric, numThreads, maxErrors: maxErrors ?? undefined, provideTraceback: options.provideTraceback },
      ...{ random, numTrials, minibatch, minibatchSize, fullEvery },
      sampler: options.sampler ?? new TPESampler(plan.seed),
      onScored: async (scored, trial, full) =>
        logDir && saveCandidate(scored, { logDir, trial, full: full && minibatch && trial > 0 }),
    })
  }
}

interface Plan<P extends Module> {
  readonly seed: number
  readonly random: PythonRandom
  readonly size: RunSize<PromptCompileOptions<P>['trainset'][number]>
  readonly zeroShot: boolean
  readonly maxBootstrappedDemos: number
  readonly maxLabeledDemos: number
  readonly minibatchSize: number
  readonly fullEvery: number
  readonly promptModel: BaseLM
}

interface Step<P extends Module> {
  readonly search: CandidateSearch<P>
  readonly plan: Plan<P>
  readonly options: MIPROv2CompileOptions<P>
}
