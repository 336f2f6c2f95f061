// The names of `dspy.…`: the program layer, and the optimizers as DSPy calls them.

export {
  BetterTogether,
  BootstrapFewShot,
  BootstrapFewShotWithRandomSearch,
  BootstrapFinetune,
  BootstrapRS,
  GEPA,
  LabeledFewShot,
  MIPROv2,
  SIMBA,
} from './optimize'
export * from './program'
