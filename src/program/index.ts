// DSPy's program layer: signatures, modules, adapters, language models, evaluation. Knows no engine, no server, no display. The names of `dspy.…`.

export { Adapter, type AdapterCall, type Demo, type ParseIssue, type ParseResult } from './adapter'
export {
  BaseLM,
  type HistoryEntry,
  inspectHistory,
  type LMOptions,
  type LMOutput,
  type LMRequest,
  type LMResponse,
  type LMUsage,
} from './base-lm'
export type { AttemptOptions, RewardFunction } from './best-attempt'
export { BestOfN } from './best-of-n'
export { type CacheOptions, configureCache, LMCache } from './cache'
export type { Callback, CallEnd, CallStart } from './callbacks'
export { ChainOfThought } from './chain-of-thought'
export { ChatAdapter, type ChatAdapterOptions } from './chat-adapter'
export {
  configure,
  context,
  currentSettings,
  newActivityId,
  type ProgressEvent,
  type ProgressObserver,
  reportProgress,
  type Settings,
  setProgressObserver,
  settings,
  type TraceEntry,
  withTrace,
} from './context'
export { type Dataset, loadDemos, loadExamples } from './data'
export { type DummyAnswer, DummyLM } from './dummy-lm'
export { Evaluate, type EvaluateOptions, type Metric, scoreOf } from './evaluate'
export { EvaluationResult, type ExampleResult } from './evaluation-result'
export { Completions, checkExamples, Example, fieldsOf, Prediction } from './example'
export { type Field, type FieldOptions, type FieldSpec, InputField, inferPrefix, OutputField } from './field'
export type { FieldType } from './field-type'
export { History, type Turn } from './history'
export type { Loose } from './infer-types'
export { HistoryView } from './inspect-history'
export { JSONAdapter } from './json-adapter'
export { LM, type LMConfig } from './lm'
export { type MajorityOptions, majority } from './majority'
export { Module, type Program } from './module'
export { MultiChainComparison } from './multi-chain-comparison'
export { normalizeText } from './normalize-text'
export { describePredictors, OFFER_FEEDBACK } from './offer-feedback'
export { Parallel, type ParallelCall, type ParallelFailure, type ParallelOptions } from './parallel'
export { patientFetch } from './patient-fetch'
export { Predict, type PredictOptions, type PredictorState } from './predict'
export type { LoadOptions, ProgramState, SavedState } from './program-state'
export { PythonRandom } from './python-random'
export { ReAct, type ReActOptions, type Trajectory } from './react'
export { Refine, type RefineOptions } from './refine'
export { LocalCorpus, type Passage, Retrieve, type Retrieved, type Retriever, type ScoredPassage } from './retrieve'
export { checkRewardWeights, type Rewarded, type Rewards, type RewardsMetric, type RewardWeights, rewardOf } from './rewards'
export {
  type InputsOf,
  type OutputsOf,
  Signature,
  type SignatureClass,
  type SignatureSource,
  type SignatureSpec,
  type SignatureState,
} from './signature'
export { SignatureError } from './signature-text'
export { type FieldStream, type StreamChunk, type StreamOptions, streamify } from './stream'
export { type AnyTool, Tool, type ToolArguments, type ToolOptions, tool } from './tool'
export { trackUsage, type UsageByModel, UsageTracker } from './usage'
export { XMLAdapter } from './xml-adapter'
