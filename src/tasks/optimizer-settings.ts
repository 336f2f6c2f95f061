// What each optimizer may spend on data/simple-qa, by model: bench/optimizers.ts and notebooks/03 compare with these settings.

import type { SimpleQASizes } from './simple-qa'

/** Options of the optimizers' constructors (and of compile, where a name says so), to spread beside metric and models. */
export interface OptimizerSettings {
  readonly why: string
  readonly sizes: SimpleQASizes
  /** 'chat' is DSPy's default; a small model that never met that format may follow XML. */
  readonly adapter: 'chat' | 'xml'
  /** Whether the program starts with the two worked examples. */
  readonly demos: boolean
  readonly maxTokens: number
  /** Examples asked at a time. */
  readonly numThreads: number
  readonly bootstrapRS: {
    readonly maxBootstrappedDemos: number
    readonly maxLabeledDemos: number
    readonly numCandidatePrograms: number
  }
  readonly mipro: {
    readonly auto: null
    readonly numCandidates: number
    readonly maxBootstrappedDemos: number
    readonly maxLabeledDemos: number
  }
  readonly miproCompile: { readonly numTrials: number; readonly minibatch: boolean }
  readonly simba: { readonly bsize: number; readonly numCandidates: number; readonly maxSteps: number; readonly maxDemos: number }
  readonly gepa: { readonly maxMetricCalls: number; readonly reflectionMinibatchSize: number }
  /** Longest text that the model writes about prompts, in tokens. */
  readonly promptMaxTokens: number
  readonly finetune: { readonly learning_rate: number; readonly num_train_epochs: number }
  readonly grpo: {
    readonly numTrainSteps: number
    readonly numDspyExamplesPerGrpoStep: number
    readonly numRolloutsPerGrpoStep: number
    readonly excludeDemos: boolean
  }
  readonly grpoTrain: { readonly learning_rate: number }
  /** GRPO steps after the prompt optimizer in BetterTogether. */
  readonly togetherSteps: number
}

const TINY: OptimizerSettings = {
  why: 'a minute on 16 cores. The model knows its facts and one format; it cannot write instructions, so only demonstrations and weights can help it',
  sizes: { train: 96, val: 60, test: 200 },
  adapter: 'chat',
  demos: false,
  maxTokens: 96,
  numThreads: 32,
  bootstrapRS: { maxBootstrappedDemos: 2, maxLabeledDemos: 0, numCandidatePrograms: 4 },
  mipro: { auto: null, numCandidates: 4, maxBootstrappedDemos: 2, maxLabeledDemos: 0 },
  miproCompile: { numTrials: 6, minibatch: false },
  simba: { bsize: 16, numCandidates: 4, maxSteps: 3, maxDemos: 2 },
  gepa: { maxMetricCalls: 250, reflectionMinibatchSize: 1 },
  promptMaxTokens: 160,
  finetune: { learning_rate: 1e-3, num_train_epochs: 4 },
  grpo: { numTrainSteps: 60, numDspyExamplesPerGrpoStep: 8, numRolloutsPerGrpoStep: 4, excludeDemos: false },
  grpoTrain: { learning_rate: 3e-4 },
  togetherSteps: 40,
}

const SMOL: OptimizerSettings = {
  why: 'six minutes on 16 cores. ChatAdapter is beyond it, so it gets XML and two worked examples',
  sizes: {
    train: 64,
    val: 40,
    test: 100,
    categories: ['capital', 'currency', 'element', 'language', 'larger', 'product', 'smaller', 'symbol'],
  },
  adapter: 'xml',
  demos: true,
  maxTokens: 48,
  numThreads: 32,
  bootstrapRS: { maxBootstrappedDemos: 3, maxLabeledDemos: 2, numCandidatePrograms: 3 },
  mipro: { auto: null, numCandidates: 3, maxBootstrappedDemos: 3, maxLabeledDemos: 2 },
  miproCompile: { numTrials: 5, minibatch: false },
  simba: { bsize: 8, numCandidates: 3, maxSteps: 3, maxDemos: 3 },
  gepa: { maxMetricCalls: 150, reflectionMinibatchSize: 3 },
  promptMaxTokens: 200,
  finetune: { learning_rate: 5e-4, num_train_epochs: 3 },
  grpo: { numTrainSteps: 15, numDspyExamplesPerGrpoStep: 8, numRolloutsPerGrpoStep: 4, excludeDemos: false },
  grpoTrain: { learning_rate: 5e-4 },
  togetherSteps: 10,
}

/** The same model with room to search and to train: two minutes an optimizer on a GPU. */
const SMOL_ON_GPU: OptimizerSettings = {
  ...SMOL,
  why: 'for a GPU: searches twice as wide, ten times the steps',
  sizes: { ...SMOL.sizes, train: 96, val: 60, test: 100 },
  bootstrapRS: { ...SMOL.bootstrapRS, numCandidatePrograms: 8 },
  mipro: { ...SMOL.mipro, numCandidates: 6 },
  miproCompile: { numTrials: 10, minibatch: false },
  simba: { bsize: 16, numCandidates: 6, maxSteps: 6, maxDemos: 3 },
  gepa: { maxMetricCalls: 500, reflectionMinibatchSize: 3 },
  grpo: { ...SMOL.grpo, numTrainSteps: 150 },
  grpoTrain: { learning_rate: 3e-4 },
  togetherSteps: 150,
}

/** For models of a billion parameters and more, on a GPU. */
const LARGE: OptimizerSettings = {
  why: 'for a GPU: sizes as in the tutorials of DSPy',
  sizes: { train: 200, val: 100, test: 300 },
  adapter: 'chat',
  demos: false,
  maxTokens: 256,
  numThreads: 64,
  bootstrapRS: { maxBootstrappedDemos: 4, maxLabeledDemos: 4, numCandidatePrograms: 8 },
  mipro: { auto: null, numCandidates: 6, maxBootstrappedDemos: 4, maxLabeledDemos: 4 },
  miproCompile: { numTrials: 12, minibatch: false },
  simba: { bsize: 32, numCandidates: 6, maxSteps: 6, maxDemos: 4 },
  gepa: { maxMetricCalls: 1000, reflectionMinibatchSize: 3 },
  promptMaxTokens: 1024,
  finetune: { learning_rate: 1e-4, num_train_epochs: 3 },
  grpo: { numTrainSteps: 60, numDspyExamplesPerGrpoStep: 8, numRolloutsPerGrpoStep: 8, excludeDemos: false },
  grpoTrain: { learning_rate: 1e-4 },
  togetherSteps: 40,
}

/** The settings that suit a model, by its name, and the device it runs on. */
export function optimizerSettings(model: string, device = 'cpu'): OptimizerSettings {
  if (/arbor-tiny/.test(model)) return TINY
  if (!/SmolLM2/i.test(model)) return LARGE
  return device === 'cuda' ? SMOL_ON_GPU : SMOL
}

/** Every value of several settings in a row of its own, a column each, to be read side by side. */
export function compareSettings(columns: Readonly<Record<string, OptimizerSettings>>): Record<string, string>[] {
  const values = Object.entries(columns).map(([name, { why: _, ...settings }]) => ({ name, own: new Map(flat(settings)) }))
  return [...values[0]!.own.keys()].map((setting) => ({
    setting,
    ...Object.fromEntries(values.map(({ name, own }) => [name, String(own.get(setting))])),
  }))
}

function flat(value: object, path = ''): [string, unknown][] {
  return Object.entries(value).flatMap(([key, one]): [string, unknown][] =>
    one !== null && typeof one === 'object' && !Array.isArray(one) ? flat(one, `${path}${key}: `) : [[path + key, one]],
  )
}
