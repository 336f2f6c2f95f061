// DSPy's program layer: signatures, modules, adapters, language models, evaluation. Knows no engine, no server, no display. The names of `dspy.…`.

export { Adapter, type AdapterCall, type Demo, type ParseIssue, type ParseResult } from './adapter'
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
export { Completions, Example, fieldsOf, Prediction } from './example'
export { type Field, type FieldOptions, type FieldSpec, InputField, inferPrefix, OutputField } from './field'
export type { FieldType, History } from './field-type'
export type { Loose } from './infer-types'
export { JSONAdapter } from './json-adapter'
export {
  BaseLM,
  type HistoryEntry,
  LM,
  type LMConfig,
  type LMOptions,
  type LMOutput,
  type LMRequest,
  type LMResponse,
  type LMUsage,
} from './lm'
export { Module, type Program, type ProgramState } from './module'
export { Predict, type PredictOptions, type PredictorState } from './predict'
export { PythonRandom } from './python-random'
export {
  type InputsOf,
  type OutputsOf,
  Signature,
  type SignatureSource,
  type SignatureSpec,
  type SignatureState,
} from './signature'
export { SignatureError } from './signature-text'
export { XMLAdapter } from './xml-adapter'
