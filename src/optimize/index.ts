// What compile() does, one optimizer a file; runs in the notebook's process and knows the server by its protocol only.

export { ArborGRPO, type CompileOptions, type GrpoProgress, type TrainingRun } from './arbor-grpo'
export { ArborJob } from './arbor-job'
export { ArborProvider, type FinetuneProvider } from './arbor-provider'
export {
  BetterTogether,
  type BetterTogetherCandidate,
  type BetterTogetherCompileOptions,
  type BetterTogetherResult,
  type Optimizer,
} from './better-together'
export { BootstrapFewShot, type BootstrapFewShotOptions } from './bootstrap-few-shot'
export {
  BootstrapFinetune,
  type BootstrapFinetuneOptions,
  type FinetuneCompileOptions,
  type FinetuneProgress,
  type FinetuneRun,
} from './bootstrap-finetune'
export {
  BootstrapFewShotWithRandomSearch,
  BootstrapRS,
  type BootstrapRSCompileOptions,
  type BootstrapRSOptions,
} from './bootstrap-rs'
export type { BootstrapRun } from './bootstrap-session'
export {
  type Candidate,
  type CandidateRecord,
  CandidateSearch,
  type Optimized,
  type PromptCompileOptions,
  type SearchProgress,
  type SearchResult,
  type TrialLog,
} from './candidates'
export { GEPA } from './gepa'
export type { GEPAOptions } from './gepa-options'
export type { GepaMetric, ScoreWithFeedback } from './gepa-program'
export type { GepaOptimized, GepaResult } from './gepa-result'
export type { ArborGRPOOptions } from './grpo-options'
export { type LabeledCompileOptions, LabeledFewShot, type LabeledFewShotOptions } from './labeled-few-shot'
export { init, type ServerInfo, type ServerOptions, shutdown, startServer, status } from './launch'
export { MIPROv2, type MIPROv2CompileOptions, type MIPROv2Options } from './mipro-v2'
export { SIMBA } from './simba'
export type { SIMBACompileOptions, SIMBAOptions } from './simba-options'
export type { Spending } from './spending'
export { type ParameterSampler, TPESampler } from './tpe-sampler'
