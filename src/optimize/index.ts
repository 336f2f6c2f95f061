// What compile() does, one optimizer a file; runs in the notebook's process and knows the server by its protocol only.

export { ArborGRPO, type CompileOptions, type GrpoProgress, type TrainingRun } from './arbor-grpo'
export { ArborJob } from './arbor-job'
export { ArborProvider } from './arbor-provider'
export {
  type Candidate,
  type CandidateRecord,
  CandidateSearch,
  type Optimized,
  type PromptCompileOptions,
  type SearchProgress,
  type SearchResult,
  type Spending,
  type TrialLog,
} from './candidates'
export type { ArborGRPOOptions } from './grpo-options'
export { init, type ServerInfo, type ServerOptions, shutdown, startServer, status } from './launch'
