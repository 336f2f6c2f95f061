// Programs, metrics and examples as the vectors describe them (README.md, "Program description" and "Metric").
import { ChainOfThought, Example, fieldsOf, type Metric, Module, Predict, Prediction } from '../../../src/program'
import { signatureFromSpec } from './dspy'

type Row = Record<string, unknown>
type SignatureSource = string | Row

interface Step {
  readonly name: string
  readonly module: 'predict' | 'cot'
  readonly signature: SignatureSource
  readonly inputs: Record<string, string>
  readonly repeat?: { readonly max: number; readonly until: string; readonly equals: unknown }
}

export type ProgramDescription =
  | { readonly kind: 'predict' | 'cot'; readonly signature: SignatureSource; readonly config?: Row }
  | { readonly kind: 'pipeline'; readonly steps: readonly Step[]; readonly returns?: Record<string, string> }

export function buildProgram(description: ProgramDescription): Module {
  if (description.kind === 'pipeline') return new Pipeline(description)
  return oneModule(description.kind, description.signature, description.config)
}

function oneModule(kind: 'predict' | 'cot', source: SignatureSource, config: Row = {}): Module {
  const signature = typeof source === 'string' ? source : signatureFromSpec(source)
  return kind === 'predict' ? new Predict(signature, config) : new ChainOfThought(signature, config)
}

type PipelineDescription = Extract<ProgramDescription, { kind: 'pipeline' }>

/** The steps in order, each an attribute of its own. */
class Pipeline extends Module {
  readonly description: PipelineDescription;
  [step: string]: unknown

  constructor(description: PipelineDescription) {
    super()
    this.description = description
    for (const { name, module, signature } of description.steps) this[name] = oneModule(module, signature)
  }

  async forward(inputs: Row): Promise<Prediction> {
    const scope: Record<string, Row> = { input: inputs }
    const at = (path: string) => {
      const [owner, field] = path.split('.') as [string, string]
      return scope[owner]?.[field] ?? ''
    }
    let last = new Prediction({})
    const { steps, returns } = this.description
    for (const { name, inputs: wanted, repeat } of steps) {
      for (let turn = 0; turn < (repeat?.max ?? 1); turn++) {
        const given = Object.fromEntries(Object.entries(wanted).map(([field, path]) => [field, at(path)]))
        last = (await (this[name] as Module).call(given as never)) as Prediction
        scope[name] = fieldsOf(last)
        if (repeat && last.get(repeat.until) === repeat.equals) break
      }
    }
    if (!returns) return last
    return new Prediction(Object.fromEntries(Object.entries(returns).map(([field, path]) => [field, at(path)])))
  }
}

export interface MetricDescription {
  readonly kind: 'exact' | 'table'
  readonly field: string
  readonly scores?: Record<string, number>
  readonly default?: number
  readonly raise_on?: readonly string[]
}

export function buildMetric({ kind, field, scores = {}, default: otherwise = 0, raise_on = [] }: MetricDescription): Metric {
  return function metric_name(example, prediction) {
    const value = prediction[field]
    if (raise_on.includes(value)) throw new Error(`metric cannot judge ${value}`)
    return kind === 'exact' ? example[field] === value : (scores[value] ?? otherwise)
  }
}

export function examplesOf(rows: readonly Row[], inputKeys: readonly string[]): Example[] {
  return rows.map((row) => new Example(row).withInputs(...inputKeys))
}

/** Demos of every predictor as plain rows. */
export function demosOf(program: Module): Record<string, Row[]> {
  return Object.fromEntries(program.namedPredictors().map(([name, { demos }]) => [name, demos.map((demo) => fieldsOf(demo))]))
}

/** Python's option names as ours: `max_labeled_demos` → `maxLabeledDemos`. */
export function camelOptions(options: Row): Row {
  return Object.fromEntries(
    Object.entries(options).map(([key, value]) => [key.replace(/_(\w)/g, (_, letter: string) => letter.toUpperCase()), value]),
  )
}
