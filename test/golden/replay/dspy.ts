// Replays of golden/dspy: what DSPy 3.3.1 does, asked of src/program.
import { AdapterParseError, LMError } from '../../../src/errors'
import {
  ChatAdapter,
  Example,
  type Field,
  inferPrefix,
  Prediction,
  PythonRandom,
  Signature,
  SignatureError,
  XMLAdapter,
} from '../../../src/program'
import type { Adapter } from '../../../src/program/adapter'
import { describeField } from '../../../src/program/field'
import { type FieldType, promptSchema } from '../../../src/program/field-type'
import { TypeMismatch } from '../../../src/program/parse-value'
import { parseType } from '../../../src/program/signature-text'
import { type Difference, firstDifference, type GoldenCase, type Replay } from './case'

type Row = Record<string, unknown>
type Failure = { class: string; message?: string; message_py?: string }

export const dspyReplays: Record<string, Replay> = {
  signature: replaySignature,
  example: ({ input, expected }) => firstDifference(expected, exampleResults(input as Row)),
  chat_format: formatWith(new ChatAdapter()),
  xml_format: formatWith(new XMLAdapter()),
  chat_parse: parseWith(new ChatAdapter()),
  xml_parse: parseWith(new XMLAdapter()),
  random: ({ input, expected }) => firstDifference(expected, randomResults(input as { seed: string }, expected as Row)),
}

// ---------------------------------------------------------------- signatures

interface FieldDescription extends Row {
  name: string
  type: FieldType
  desc: string
  prefix: string
}
export interface SignatureDescription extends Row {
  name: string
  instructions: string
  inputs: FieldDescription[]
  outputs: FieldDescription[]
}

export function readSignature({ name, instructions, inputs, outputs }: SignatureDescription): Signature {
  const read =
    (role: Field['role']) =>
    (field: FieldDescription): Field => ({
      name: field.name,
      role,
      type: field.type,
      desc: field.desc,
      prefix: field.prefix,
      ...(typeof field.constraints === 'string' ? { constraints: field.constraints } : {}),
      ...('default' in field ? { default: field.default } : {}),
      ...(field.type_undefined ? { typeUndefined: true } : {}),
    })
  return Signature.fromFields([...inputs.map(read('input')), ...outputs.map(read('output'))], instructions, name)
}

/** Types whose prompt names no JSON schema. */
const PLAIN_KINDS = ['str', 'int', 'float', 'bool', 'history']

export function describe(signature: Signature): Row {
  const field = (one: Field) => ({
    ...describeField(one),
    type: withAnnotations(one.type),
    ...(PLAIN_KINDS.includes(one.type.kind) ? {} : { json_schema: promptSchema(one.type) }),
  })
  const { name, instructions, inputFields, outputFields } = signature
  return { name, instructions, inputs: inputFields.map(field), outputs: outputFields.map(field) }
}

/** The vectors name the annotation of a model's fields beside their type. */
function withAnnotations(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withAnnotations)
  if (typeof value !== 'object' || value === null) return value
  const copy = Object.fromEntries(
    Object.entries(value).map(([key, item]) => [key, key === 'default' ? item : withAnnotations(item)]),
  )
  return 'required' in value ? { ...copy, annotation: describeField(value as never).annotation } : copy
}

function replaySignature({ input, expected }: GoldenCase): Difference | null | Promise<Difference | null> {
  const given = input as { string?: string; spec?: Row; names?: string[]; base?: SignatureDescription; ops?: unknown[][] }
  if (given.names) return firstDifference(expected, { prefixes: given.names.map(inferPrefix) })
  if (given.base) {
    const base = readSignature(given.base)
    return firstDifference(expected, { results: given.ops!.map((op) => describe(applyOp(base, op))) })
  }
  return compareResult(expected as Row, () => ({
    value: describe(given.spec ? signatureFromSpec(given.spec) : new Signature(given.string!)),
  }))
}

interface SpecField extends Row {
  name: string
  annotation: string
}

export function signatureFromSpec(spec: Row): Signature {
  const instructions = spec.instructions as string | undefined
  const customTypes = readTypes((spec.types ?? {}) as Record<string, Row>)
  const fields = (list: unknown) =>
    Object.fromEntries((list as SpecField[]).map(({ name, annotation, ...options }) => [name, { ...options, type: annotation }]))
  const signature: Signature =
    typeof spec.string === 'string'
      ? new Signature(spec.string, instructions, customTypes)
      : new Signature(
          { name: spec.name as string, inputs: fields(spec.inputs), outputs: fields(spec.outputs) },
          instructions,
          customTypes,
        )
  return spec.cot ? (signature.prepend('reasoning', { role: 'output' }) as Signature) : signature
}

function readTypes(types: Record<string, Row>): Record<string, FieldType> {
  const known: Record<string, FieldType> = {}
  for (const [name, type] of Object.entries(types)) {
    known[name] = type.kind === 'enum' ? readEnum(name, type.members as Row) : readModel(name, type.fields as SpecField[], known)
  }
  return known
}

function readEnum(name: string, members: Row): FieldType {
  return { kind: 'enum', name, members: Object.entries(members).map(([key, value]) => ({ name: key, value: value as string })) }
}

const LIMITS = ['gt', 'ge', 'lt', 'le', 'min_length', 'max_length', 'multiple_of']

function readModel(name: string, fields: SpecField[], known: Record<string, FieldType>): FieldType {
  return {
    kind: 'model',
    name,
    fields: fields.map((field) => {
      const limits = Object.entries(field).filter(([key]) => LIMITS.includes(key))
      const description = (field.description ?? field.desc) as string | undefined
      return {
        name: field.name,
        type: parseType(field.annotation, known),
        required: !('default' in field),
        ...('default' in field ? { default: field.default } : {}),
        ...(description === undefined ? {} : { description }),
        ...(limits.length > 0 ? { constraints: Object.fromEntries(limits) } : {}),
      }
    }),
  }
}

function applyOp(base: Signature, [op, ...args]: unknown[]): Signature {
  const [first, second, third] = args as [string, string | undefined, string | undefined]
  const typed = (role: Field['role'], type: string | null | undefined) => ({ role, ...(type ? { type } : {}) })
  switch (op) {
    case 'prepend_input':
    case 'prepend_output':
      return base.prepend(first, typed(op.endsWith('input') ? 'input' : 'output', second)) as Signature
    case 'append_input':
    case 'append_output':
      return base.append(first, typed(op.endsWith('input') ? 'input' : 'output', second)) as Signature
    case 'insert_input':
    case 'insert_output':
      return base.insert(Number(first), second!, typed(op.endsWith('input') ? 'input' : 'output', third)) as Signature
    case 'delete':
      return base.delete(first) as Signature
    case 'with_instructions':
      return base.withInstructions(first)
    case 'append_instructions':
      return base.appendInstructions(first)
    case 'with_updated_fields':
      return base.withUpdatedFields(first, { ...(second as unknown as Row), ...(third ? { type: third } : {}) })
  }
  throw new Error(`unknown operation ${String(op)}`)
}

// ---------------------------------------------------------------- adapters

export function formatWith(adapter: Adapter): Replay {
  return ({ input, expected }) => {
    const { signature, demos, inputs } = input as { signature: SignatureDescription; demos: Row[]; inputs: Row }
    return compareResult(expected as Row, () => ({ messages: adapter.format(readSignature(signature), demos, inputs) }))
  }
}

export function parseWith(adapter: Adapter): Replay {
  return ({ input, expected }) => {
    const { signature, completion } = input as { signature: SignatureDescription; completion: string }
    const { types: _, ...wanted } = expected as Row // Python's types; the values tell what JavaScript can tell
    return compareResult(wanted, () => ({ fields: floats(adapter.parse(readSignature(signature), completion)) }))
  }
}

/** Numbers that JSON can't hold, as the vectors write them. */
export function floats(value: unknown): unknown {
  if (typeof value === 'number' && !Number.isFinite(value)) {
    return { $float: Number.isNaN(value) ? 'nan' : value > 0 ? 'inf' : '-inf' }
  }
  if (Array.isArray(value)) return value.map(floats)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, floats(item)]))
}

/** Compares a result that may fail: the class always, the message where the vector holds DSPy's own words. */
export async function compareResult(expected: Row, run: () => Row | Promise<Row>): Promise<Difference | null> {
  try {
    return firstDifference(expected, { ok: true, ...(await run()) })
  } catch (error) {
    if (expected.ok) throw error
    const { message_py, ...wanted } = expected.error as Failure & Row
    const failure = describeFailure(error)
    if (message_py !== undefined) delete failure.message
    return firstDifference(wanted, failure, { path: 'error' })
  }
}

const PYTHON_CLASSES = {
  signature_syntax: 'SyntaxError',
  signature_value: 'ValueError',
  signature_name: 'PydanticUserError',
} as const

export function describeFailure(error: unknown): Row {
  if (error instanceof AdapterParseError) {
    const { adapterName, raw, parsed, message, cause } = error
    // DSPy's JSONAdapter lets the error of a field's type through as it is; ours is the cause of an AdapterParseError
    if (adapterName === 'JSONAdapter' && cause instanceof TypeMismatch)
      return { class: cause.isChoice ? 'ValueError' : 'ValidationError', message: cause.message }
    return { class: 'AdapterParseError', adapter_name: adapterName, lm_response: raw, parsed_result: parsed, message }
  }
  if (error instanceof SignatureError) return { class: PYTHON_CLASSES[error.code], message: error.message }
  if (error instanceof LMError) return { class: error.name, message: error.message }
  throw error
}

// ---------------------------------------------------------------- examples

/** Runs `run`, which has to fail; the answer is the failure as Python words it, since ours says what to write in TypeScript. */
function failsAs(failure: Failure, run: () => unknown): Row {
  try {
    return { ok: true, value: run() }
  } catch {
    return { ok: false, error: failure }
  }
}

const NO_INPUTS = {
  class: 'ValueError',
  message: 'Inputs have not been set for this example. Use `example.with_inputs()` to set them.',
}

function exampleResults(input: Row): Row {
  if (input.completions) return predictionResults(input.completions as Row[])
  const row = input.row as Row
  const keys = input.input_keys as string[]
  const example = new Example(row)
  const split = example.withInputs(...keys)
  const absent = example.withInputs(...keys, 'absent_key')
  const keepsKeys = (copy: Example) => copy.inputKeys !== null
  const firstKey = Object.keys(row)[0]
  return {
    keys: example.keys(),
    keys_include_dspy: example.keys(true),
    values: example.values(),
    items: example.items(),
    len: example.size,
    toDict: example.toDict(),
    repr: String(example),
    inputs_before_with_inputs: failsAs(NO_INPUTS, () => example.inputs()),
    labels_before_with_inputs: failsAs(NO_INPUTS, () => example.labels()),
    with_inputs: {
      input_keys: split.inputKeys,
      inputs: split.inputs().toDict(),
      labels: split.labels().toDict(),
      original_unchanged: example.inputKeys === null,
      copy_of_example_keeps_input_keys: keepsKeys(split.copy()),
      without_keeps_input_keys: firstKey === undefined ? null : keepsKeys(split.without(firstKey)),
      inputs_keep_input_keys: split.inputs().inputKeys,
      labels_input_keys_is_none: split.labels().inputKeys === null,
    },
    with_absent_input: { inputs: absent.inputs().toDict(), labels: absent.labels().toDict() },
    copy_override: example.copy({ new: 'x' }).toDict(),
    get_missing: example.get('zzz') ?? null,
    get_default: example.get('zzz', 'd'),
    equal_to_same_content: example.equals(new Example(row)),
    equal_ignores_input_keys: example.equals(split),
    equal_ignores_key_order: example.equals(new Example(Object.fromEntries(Object.entries(row).reverse()))),
    without_missing: failsAs({ class: 'KeyError', message: "'zzz'" }, () => example.without('zzz')),
    getattr_missing: failsAs({ class: 'AttributeError', message: "'Example' object has no attribute 'zzz'" }, () => {
      if ((example as Row).zzz === undefined) throw new Error('undefined is how JavaScript says that there is no such attribute')
    }),
    equal_to_prediction_with_same_store: example.equals(new Prediction(row)),
  }
}

function predictionResults(completions: Row[]): Row {
  const prediction = Prediction.fromCompletions(completions)
  const other = prediction.completions!.at(1)
  return {
    first_completion_is_the_prediction: prediction.toDict(),
    completions_by_field: prediction.completions!.fields,
    completion_1: other.toDict(),
    n: prediction.completions!.length,
    repr: String(prediction),
    float: Number(prediction),
    sum_of_two: Number(prediction) + Number(other),
    p_lt_q: prediction < other,
    p_div_2: Number(prediction) / 2,
    rdiv: 1 / Number(prediction),
    no_score_float: failsAs(
      { class: 'ValueError', message: "Prediction object does not have a 'score' field to convert to float." },
      () => Number(new Prediction({ answer: 'a' })),
    ),
    uneven: failsAs({ class: 'AssertionError', message: 'All lists must have the same length' }, () =>
      Prediction.fromCompletions({ a: [1, 2], b: [1] }),
    ),
  }
}

// ---------------------------------------------------------------- random

/** Draws what the vector drew; sizes come from the vector, values from us. */
function randomResults({ seed }: { seed: string }, expected: Row): Row {
  const fresh = () => new PythonRandom(seed)
  const draw = <T>(count: number, one: (random: PythonRandom) => T): T[] => {
    const random = fresh()
    return Array.from({ length: count }, () => one(random))
  }
  const range = (n: number, from = 0) => Array.from({ length: n }, (_, i) => from + i)
  const shuffled = (random: PythonRandom, items: number[]) => {
    random.shuffle(items)
    return items
  }
  const sizeOf = (key: string) => (expected[key] as unknown[]).length
  const weighted = expected.choices_weighted as { population: number[]; weights: number[]; k: number }
  return {
    random: draw(sizeOf('random'), (random) => random.random()),
    getrandbits: (expected.getrandbits as { k: number }[]).map(({ k }) => ({ k, value: String(fresh().getrandbits(k)) })),
    randrange_10: draw(sizeOf('randrange_10'), (random) => random.randrange(10)),
    randint_1_6: draw(sizeOf('randint_1_6'), (random) => random.randint(1, 6)),
    shuffle: (expected.shuffle as { n: number }[]).map(({ n }) => ({ n, result: shuffled(fresh(), range(n)) })),
    sample: (expected.sample as { n: number; k: number }[]).map(({ n, k }) => ({ n, k, result: fresh().sample(range(n), k) })),
    choice_of_7: draw(sizeOf('choice_of_7'), (random) => random.choice(range(7))),
    choices_weighted: {
      population: weighted.population,
      weights: weighted.weights,
      k: weighted.k,
      result: fresh().choices(weighted.population, { weights: weighted.weights, k: weighted.k }),
    },
    mixed_sequence_one_generator: mixedSequence(fresh(), shuffled, range),
  }
}

function mixedSequence(
  random: PythonRandom,
  shuffled: (random: PythonRandom, items: number[]) => number[],
  range: (n: number, from?: number) => number[],
): Row {
  const items = shuffled(random, range(6, 1))
  return {
    shuffle_6: items,
    then_sample_6_3: random.sample(items, 3),
    then_random: random.random(),
    then_choice: random.choice(items),
    then_randint_0_1e9: random.randint(0, 1_000_000_000),
  }
}
