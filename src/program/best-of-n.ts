// BestOfN: runs a program up to N times and keeps the answer with the highest reward. Follows dspy/predict/best_of_n.py.

import { type AttemptOptions, bestAttempt, callModule, checkAttempts, type ModuleInputs, type ModuleOutput } from './best-attempt'
import { Module } from './module'

/**
 * @example
 * const oneWord = new dspy.BestOfN({ module: qa, N: 3, rewardFn: (_, { answer }) => answer.split(' ').length === 1, threshold: 1 })
 */
export class BestOfN<M extends Module = Module> extends Module {
  readonly module: M
  private readonly options: { readonly attempts: Omit<AttemptOptions<M>, 'module'> }

  constructor(options: AttemptOptions<M>) {
    super()
    checkAttempts(options)
    const { module, ...attempts } = options
    this.module = module
    this.options = { attempts }
  }

  async forward(inputs: ModuleInputs<M>): Promise<ModuleOutput<M>> {
    return bestAttempt({ ...this.options.attempts, module: this.module }, inputs, {
      name: (attempt) => `BestOfN: Attempt ${attempt}`,
      run: (module) => callModule(module, inputs),
    })
  }
}
