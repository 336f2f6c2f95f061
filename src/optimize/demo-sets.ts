// Several sets of demos for every predictor, made as BootstrapRS makes its candidates, but all from one random stream.
// After DSPy's create_n_fewshot_demo_sets in teleprompt/utils.py.

import type { Demo, Example, Module, PythonRandom } from '../program'
import { BootstrapFewShot, type BootstrapFewShotOptions } from './bootstrap-few-shot'
import { freshCopy } from './fresh-copy'
import { LabeledFewShot } from './labeled-few-shot'

export interface DemoSetOptions<P extends Module = Module> {
  readonly trainset: readonly Example[]
  readonly teacher?: P
  readonly signal?: AbortSignal
  /** Sets wanted. */
  readonly count: number
  /** Shared with whoever draws next. */
  readonly random: PythonRandom
  readonly bootstrap: BootstrapFewShotOptions & { readonly maxBootstrappedDemos: number; readonly maxLabeledDemos: number }
  /** Told of each set before it is made. */
  readonly onSet?: (index: number) => void
}

/** [predictors][sets] of demos: none, labeled ones, bootstrapped in the given order, then bootstrapped from shuffled examples. */
export async function createDemoSets<P extends Module>(student: P, options: DemoSetOptions<P>): Promise<Demo[][][]> {
  const sets: Demo[][][] = student.predictors().map(() => [])
  for (let index = 0; index < options.count; index++) {
    options.signal?.throwIfAborted()
    options.onSet?.(index)
    const program = await oneSet(student, index, options)
    for (const [i, predictor] of program.predictors().entries()) sets[i]!.push(predictor.demos)
  }
  options.signal?.throwIfAborted()
  return sets
}

async function oneSet<P extends Module>(student: P, index: number, options: DemoSetOptions<P>): Promise<P> {
  const { bootstrap, random, teacher, signal } = options
  const { maxBootstrappedDemos: most, maxLabeledDemos: k } = bootstrap
  const trainset = [...options.trainset]
  if (index === 0) return freshCopy(student)
  if (index === 1 && k > 0) return new LabeledFewShot({ k }).compile(student, { trainset })
  if (index !== 2) random.shuffle(trainset)
  const size = index === 2 || most === 0 ? most : random.randint(1, most)
  return new BootstrapFewShot({ ...bootstrap, maxBootstrappedDemos: size }).compile(student, { trainset, teacher, signal })
}
