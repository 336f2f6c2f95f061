// One file a task: program, metric, loader of its data. And what the optimizers may spend on it where they are compared.

export { type Measured, type MeasureOptions, measure, type TestScore, testScore } from './measure'
export { compareSettings, type OptimizerSettings, optimizerSettings } from './optimizer-settings'
export { answerFeedback, answerMetric, loadSimpleQA, SimpleQA, type SimpleQASizes, simpleQAProgram } from './simple-qa'
