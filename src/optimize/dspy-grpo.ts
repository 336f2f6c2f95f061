// GRPO step for step as DSPy 3.3.1 and arbor-ai 0.2.17 do it: `new ArborGRPO({ compat: 'dspy' })`. What they do differently from ArborGRPO
// on purpose or by accident stands in README.md; this is for runs that must be comparable with Python's.

import { OptionError } from '../errors'
import { context, currentSettings, type Example, type Module, PythonRandom } from '../program'
import { DspyEpochs } from './dspy-epochs'
import type { DspyGrpoSettings } from './dspy-grpo-options'
import { type DspyGrpoRun, DspySession } from './dspy-session'

export interface DspyCompileOptions {
  readonly trainset: readonly Example[]
  readonly valset?: readonly Example[] | undefined
  /** Who rolls out, the student among them; default: the student alone. */
  readonly teacher?: Module | readonly Module[] | undefined
  readonly signal?: AbortSignal | undefined
}

export class DspyGrpo {
  readonly random: PythonRandom
  readonly epochs: DspyEpochs
  run: DspyGrpoRun | null = null
  /** Batch ids that were served, over all compiles of this object. */
  readonly #fulfilled: number[] = []

  constructor(readonly settings: DspyGrpoSettings) {
    this.random = new PythonRandom(settings.seed)
    this.epochs = new DspyEpochs(settings.examplesPerStep, this.random)
  }

  /** Trains the student in place and answers it. @throws OptionError for what DSPy refuses; ProtocolError when the server fails */
  async compile<P extends Module>(student: P, options: DspyCompileOptions): Promise<P> {
    const teachers = teachersOf(student, options)
    const trainset = this.#checkSets(student, teachers, options)
    const session = new DspySession(this, { student, teachers, trainset, valset: options.valset })
    this.run = session.run
    session.setCache(false)
    const job = await session.open()
    session.report('start', { model: job.model, notes: [] })
    try {
      await context({ signal: options.signal ?? currentSettings().signal }, () => session.train(job, this.#fulfilled))
    } catch (error) {
      session.report('end', { status: 'failed', reason: error instanceof Error ? error.message : String(error) })
      throw error
    }
    session.setCache(null)
    student.compiled = true
    session.report('end', { status: 'succeeded', reason: null })
    return student
  }

  /** The trainset, repeated when it is smaller than a step. */
  #checkSets(student: Module, teachers: readonly Module[], { trainset, valset }: DspyCompileOptions): readonly Example[] {
    const { examplesPerStep, rollouts, useTrainAsVal, reportTrainScores } = this.settings
    if (trainset.length === 0) throw new OptionError('The trainset is empty: GRPO needs at least one example to roll out.')
    if (useTrainAsVal && valset) throw new OptionError('useTrainAsVal and a valset are given: leave one out.')
    if (reportTrainScores && !useTrainAsVal && !valset)
      throw new OptionError('reportTrainScores without a valset needs useTrainAsVal: true.')
    if (!teachers.includes(student)) throw new OptionError('The student is not among the teachers; add it to the list.')
    if (rollouts % teachers.length !== 0)
      throw new OptionError(`${rollouts} rollouts can't be shared by ${teachers.length} teachers: give each the same number.`)
    const times = Math.max(1, Math.ceil(examplesPerStep / trainset.length))
    return Array.from({ length: times }, () => trainset).flat()
  }
}

function teachersOf(student: Module, { teacher }: DspyCompileOptions): readonly Module[] {
  const given = teacher === undefined ? [] : Array.isArray(teacher) ? (teacher as readonly Module[]) : [teacher as Module]
  const teachers = given.length === 0 ? [student] : given
  const names = (program: Module) =>
    program
      .namedPredictors()
      .map(([name]) => name)
      .join(', ')
  for (const one of teachers)
    if (names(one) !== names(student))
      throw new OptionError(`A teacher has the predictors ${names(one)}, but the student ${names(student)}.`)
  return teachers
}
