// The names of `dspy.…`: the program layer, and the optimizers as DSPy calls them.

export {
  BootstrapFewShot,
  BootstrapFewShotWithRandomSearch,
  BootstrapRS,
  LabeledFewShot,
} from './optimize'
export * from './program'
