// A signature says what goes in and what comes out of one call of a language model, and what for.

import { constraintText, type Field, type FieldOptions, type FieldRole, type FieldSpec, inferPrefix } from './field'
import { fieldFromZod, isZod } from './field-from-zod'
import type { Flat, Loose, PythonType, SignatureTypes, Trim, ZodLike } from './infer-types'
import { cleanDoc } from './python-text'
import { type CustomTypes, parseSignature, parseType, SignatureError } from './signature-text'

/** A field in `new Signature({ inputs, outputs })`: a zod schema, a Python type as text, or options. */
export type FieldLike = ZodLike | string | FieldOptions

export interface SignatureSpec {
  readonly name?: string
  readonly instructions?: string
  readonly inputs: Readonly<Record<string, FieldLike>>
  readonly outputs: Readonly<Record<string, FieldLike>>
}

/**
 * The class form: fields as properties, the instructions as a static.
 * @example
 * class Judge {
 *   static instructions = 'Judge the answer.'
 *   answer = dspy.InputField({ desc: 'what was said' })
 *   isRight = dspy.OutputField({ type: 'bool' })
 * }
 */
export interface SignatureClass {
  new (): object
  readonly name: string
  readonly instructions?: string
}

/** Carries types only: the fields of a signature that was derived from another. */
export interface Typed<I, O> {
  readonly types: { inputs: I; outputs: O }
}

export type SignatureSource = string | SignatureSpec | SignatureClass | Typed<unknown, unknown>

type FieldValue<F> = F extends ZodLike
  ? F['_zod']['output']
  : F extends string
    ? PythonType<Trim<F>>
    : F extends { readonly type: infer T }
      ? FieldValue<T>
      : string

type TypesOf<S> = S extends string
  ? SignatureTypes<S>
  : S extends Typed<infer I, infer O>
    ? { inputs: I; outputs: O }
    : S extends { readonly inputs: infer I; readonly outputs: infer O }
      ? { inputs: { -readonly [K in keyof I]: FieldValue<I[K]> }; outputs: { -readonly [K in keyof O]: FieldValue<O[K]> } }
      : S extends new () => infer Fields
        ? { inputs: FieldsOfRole<Fields, 'input'>; outputs: FieldsOfRole<Fields, 'output'> }
        : { inputs: Loose; outputs: Loose }

type FieldsOfRole<Fields, Role extends FieldRole> = {
  -readonly [K in keyof Fields as Fields[K] extends { readonly role: Role } ? K : never]: FieldValue<Fields[K]>
}

/** What a call takes: `{ question: string }` for `'question -> answer'`. */
export type InputsOf<S> = TypesOf<S>['inputs']
/** What a call gives. */
export type OutputsOf<S> = TypesOf<S>['outputs']

type WithField<S, F, Name extends string, Value> = F extends { readonly role: 'input' }
  ? Typed<Flat<InputsOf<S> & { [K in Name]: Value }>, OutputsOf<S>>
  : Typed<InputsOf<S>, Flat<OutputsOf<S> & { [K in Name]: Value }>>

/** A field with another type; any other change leaves the types as they are. */
type WithChange<S, Name extends string, Change> = Change extends { readonly type: infer T }
  ? Typed<Changed<InputsOf<S>, Name, FieldValue<T>>, Changed<OutputsOf<S>, Name, FieldValue<T>>>
  : S

type Changed<Fields, Name, Value> = { [K in keyof Fields]: K extends Name ? Value : Fields[K] }

/** The saved form of a signature; names and types are not saved, fields match by position. */
export interface SignatureState {
  instructions: string
  fields: { prefix: string; description: string }[]
}

/**
 * Inputs, outputs and instructions. Immutable: every edit answers a new signature.
 * @example new Signature('question, docs: list[str] -> answer: bool', 'Answer from the documents.')
 * @example new Signature({ inputs: { question: z.string() }, outputs: { answer: z.number().describe('in metres') } })
 * @throws SignatureError for text that can't be read
 */
export class Signature<const S extends SignatureSource = SignatureSource> {
  readonly name: string
  readonly instructions: string
  /** Inputs before outputs, each in the author's order. */
  readonly fields: readonly Field[]
  /** Types only; holds nothing at run time. */
  declare readonly source: S

  constructor(source: S, instructions?: string, customTypes?: CustomTypes) {
    const spec = typeof source === 'function' ? specOfClass(source) : (source as string | SignatureSpec)
    const fields = typeof spec === 'string' ? fieldsFromText(spec, customTypes) : fieldsFromSpec(spec, customTypes)
    const said = instructions ?? (typeof spec === 'string' ? undefined : spec.instructions)
    this.name = (typeof spec === 'string' ? undefined : spec.name) ?? 'StringSignature'
    this.fields = checkNames(fields)
    this.instructions = said === undefined ? defaultInstructions(fields) : cleanDoc(said)
  }

  /** A signature of ready fields. */
  static fromFields<S extends SignatureSource = SignatureSource>(
    fields: readonly Field[],
    instructions: string,
    name = 'StringSignature',
  ): Signature<S> {
    const ordered = [...fields.filter((field) => field.role === 'input'), ...fields.filter((field) => field.role === 'output')]
    return Object.assign(Object.create(Signature.prototype), {
      name,
      instructions: cleanDoc(instructions),
      fields: checkNames(ordered),
    })
  }

  get inputFields(): readonly Field[] {
    return this.fields.filter((field) => field.role === 'input')
  }

  get outputFields(): readonly Field[] {
    return this.fields.filter((field) => field.role === 'output')
  }

  /** `'question, context -> answer'`. */
  get signature(): string {
    const names = (fields: readonly Field[]) => fields.map((field) => field.name).join(', ')
    return `${names(this.inputFields)} -> ${names(this.outputFields)}`
  }

  field(name: string): Field | undefined {
    return this.fields.find((field) => field.name === name)
  }

  /** The same fields with other instructions. */
  withInstructions(instructions: string): Signature<S> {
    return Signature.fromFields(this.fields, instructions)
  }

  /** The instructions, a blank line, then more. */
  appendInstructions(instructions: string): Signature<S> {
    return Signature.fromFields(this.fields, `${this.instructions}\n\n${instructions}`)
  }

  /** One field changed: its type, description, prefix or default. */
  withUpdatedFields<const N extends string, const C extends FieldOptions>(name: N, changes: C): Signature<WithChange<S, N, C>> {
    if (!this.field(name)) throw new SignatureError(`There is no field '${name}' in '${this.signature}'.`, 'signature_value')
    const fields = this.fields.map((field) => (field.name === name ? updateField(field, changes) : field))
    return Signature.fromFields(fields, this.instructions)
  }

  /** The field first among the inputs, or among the outputs, as its role says. */
  prepend<
    const N extends string,
    const F extends FieldSpec,
    const T extends string | ZodLike = F extends { type: infer X extends string | ZodLike } ? X : 'str',
  >(name: N, field: F, type?: T): Signature<WithField<S, F, N, FieldValue<T>>> {
    return this.insert(0, name, type === undefined ? field : { ...field, type }) as never
  }

  /** The field last among the inputs, or among the outputs. */
  append<
    const N extends string,
    const F extends FieldSpec,
    const T extends string | ZodLike = F extends { type: infer X extends string | ZodLike } ? X : 'str',
  >(name: N, field: F, type?: T): Signature<WithField<S, F, N, FieldValue<T>>> {
    return this.insert(-1, name, type === undefined ? field : { ...field, type }) as never
  }

  /** The field at a position among the inputs or outputs; negative positions count from the end, −1 appends. */
  insert<const N extends string, const F extends FieldSpec>(
    index: number,
    name: N,
    field: F,
  ): Signature<WithField<S, F, N, FieldValue<F>>> {
    const groups: Record<FieldRole, Field[]> = { input: [...this.inputFields], output: [...this.outputFields] }
    const group = groups[field.role]
    const at = index < 0 ? index + group.length + 1 : index
    if (at < 0 || at > group.length) {
      throw new SignatureError(
        `Can't insert '${name}' at ${index}: there are ${group.length} ${field.role} fields, so use −1 to ${group.length}.`,
        'signature_value',
      )
    }
    const added = makeField(name, field.role, field)
    const others = Object.fromEntries(
      Object.entries(groups).map(([role, fields]) => [role, fields.filter((other) => other.name !== name)]),
    )
    others[field.role]!.splice(at, 0, added)
    return Signature.fromFields([...others.input!, ...others.output!], this.instructions)
  }

  /** Without the field; an unknown name changes nothing. */
  delete<N extends string>(name: N): Signature<Typed<Omit<InputsOf<S>, N>, Omit<OutputsOf<S>, N>>> {
    const fields = this.fields.filter((field) => field.name !== name)
    return Signature.fromFields(fields, this.instructions)
  }

  /** Same instructions, same field names, descriptions, prefixes and limits. Types don't count, as in DSPy. */
  equals(other: unknown): boolean {
    if (!(other instanceof Signature) || other.instructions !== this.instructions) return false
    const key = (signature: Signature) =>
      JSON.stringify(
        signature.fields.map(({ name, role, desc, prefix, constraints }) => [name, role, desc, prefix, constraints]).sort(),
      )
    return key(this as Signature) === key(other as Signature)
  }

  dumpState(): SignatureState {
    return { instructions: this.instructions, fields: this.fields.map(({ prefix, desc }) => ({ prefix, description: desc })) }
  }

  /** This signature with saved instructions, prefixes and descriptions. */
  loadState(state: SignatureState): Signature<S> {
    const fields = this.fields.map((field, i) => {
      const saved = state.fields[i]
      return saved ? { ...field, prefix: saved.prefix, desc: saved.description } : field
    })
    return Signature.fromFields(fields, state.instructions)
  }

  toString(): string {
    return `${this.name}(${this.signature})`
  }
}

/** A signature from whatever a module was given. */
export function ensureSignature<S extends SignatureSource>(signature: S | Signature<S>): Signature<S> {
  return signature instanceof Signature ? signature : new Signature(signature)
}

function fieldsFromText(text: string, customTypes?: CustomTypes): Field[] {
  const { inputs, outputs } = parseSignature(text, customTypes)
  const make = (role: FieldRole) => (parsed: { name: string; type: Field['type']; typeUndefined: boolean }) => ({
    ...makeField(parsed.name, role, {}),
    type: parsed.type,
    ...(role === 'input' && parsed.typeUndefined ? { typeUndefined: true } : {}),
  })
  return [...inputs.map(make('input')), ...outputs.map(make('output'))]
}

function specOfClass(signature: SignatureClass): SignatureSpec {
  const inputs: Record<string, FieldOptions> = {}
  const outputs: Record<string, FieldOptions> = {}
  for (const [name, field] of Object.entries(new signature()) as [string, Partial<FieldSpec> | null][]) {
    const { role, ...options } = field ?? {}
    if (role !== 'input' && role !== 'output') {
      throw new SignatureError(
        `'${name}' of the signature class ${signature.name} is no field. Write ${name} = dspy.InputField() or dspy.OutputField().`,
        'signature_value',
      )
    }
    ;(role === 'input' ? inputs : outputs)[name] = options
  }
  const said = signature.instructions === undefined ? {} : { instructions: signature.instructions }
  return { name: signature.name, inputs, outputs, ...said }
}

function fieldsFromSpec(spec: SignatureSpec, customTypes?: CustomTypes): Field[] {
  if (typeof spec?.inputs !== 'object' || typeof spec.outputs !== 'object') {
    throw new SignatureError(
      `A signature is a string like 'question -> answer', { inputs: {…}, outputs: {…} } or a class of fields, but this is ${describeValue(spec)}.`,
      'signature_value',
    )
  }
  const make = (role: FieldRole, fields: Readonly<Record<string, FieldLike>>) =>
    Object.entries(fields).map(([name, like]) => {
      const options = isZod(like) || typeof like === 'string' ? { type: like } : like
      return makeField(name, role, options, customTypes)
    })
  const fields = [...make('input', spec.inputs), ...make('output', spec.outputs)]
  const twice = Object.keys(spec.inputs).filter((name) => name in spec.outputs)
  if (twice.length === 0) return fields
  throw new SignatureError(
    `Input and output fields must have distinct names, but found duplicates: '${twice.sort().join(', ')}'.`,
    'signature_value',
  )
}

function makeField(name: string, role: FieldRole, options: FieldOptions, customTypes?: CustomTypes): Field {
  const blank: Field = { name, role, type: { kind: 'str' }, desc: `\${${name}}`, prefix: `${inferPrefix(name)}:` }
  return updateField(blank, options, customTypes)
}

function updateField(field: Field, options: FieldOptions, customTypes?: CustomTypes): Field {
  const fromZod = isZod(options.type) ? fieldFromZod(options.type, field.name) : undefined
  const type = fromZod?.type ?? (typeof options.type === 'string' ? parseType(options.type, customTypes) : field.type)
  const desc = options.desc ?? fromZod?.description
  const prefix = options.prefix ?? fromZod?.prefix
  const constraints = constraintText({ ...fromZod?.constraints, ...options })
  const defaults =
    'default' in options ? { default: options.default } : fromZod && 'default' in fromZod ? { default: fromZod.default } : {}
  return {
    ...field,
    type,
    ...(desc === undefined ? {} : { desc }),
    ...(prefix === undefined ? {} : { prefix }),
    ...(constraints === undefined ? {} : { constraints }),
    ...defaults,
    ...(isZod(options.type) ? { schema: options.type } : {}),
  }
}

function describeValue(value: unknown): string {
  return typeof value === 'object' && value !== null
    ? `an object with ${Object.keys(value).join(', ') || 'nothing'}`
    : String(value)
}

function checkNames(fields: readonly Field[]): readonly Field[] {
  const bad = fields.find((field) => field.name.startsWith('_'))
  if (!bad) return fields
  throw new SignatureError(
    `Fields must not use names with leading underscores; e.g., use '${bad.name.replace(/^_+/, '')}' instead of '${bad.name}'.`,
    'signature_name',
  )
}

function defaultInstructions(fields: readonly Field[]): string {
  const names = (role: FieldRole) =>
    fields
      .filter((field) => field.role === role)
      .map((field) => `\`${field.name}\``)
      .join(', ')
  return `Given the fields ${names('input')}, produce the fields ${names('output')}.`
}
