// A tool that a model may call: a name, what it does, typed arguments, and the function that does it.

import { OptionError } from '../errors'
import { watched } from './callbacks'
import { fieldFromZod, isZod } from './field-from-zod'
import { type JsonSchema, jsonSchema } from './field-type'
import type { Loose, ZodLike } from './infer-types'
import { pyRepr } from './python-text'

/** What a `z.object({...})` has, as far as tools need it. */
export interface ZodObjectLike extends ZodLike {
  readonly shape: Readonly<Record<string, ZodLike>>
  safeParse(value: unknown): {
    readonly success: boolean
    readonly data?: unknown
    readonly error?: { readonly issues: readonly Issue[] }
  }
}

interface Issue {
  readonly path: readonly PropertyKey[]
  readonly message: string
}

/** What `run` is given: the arguments as the schema's output type; anything where no schema is known. */
export type ToolArguments<A> = A extends ZodLike ? (unknown extends A['_zod']['output'] ? Loose : A['_zod']['output']) : Loose

/** Tools of any arguments, ready or as their options, in a list. */
export type AnyTool = Tool | ToolOptions<ZodObjectLike | undefined>

export interface ToolOptions<A extends ZodObjectLike | undefined = undefined> {
  /** As the model writes it; without it the function's own name. */
  readonly name?: string
  /** For the model: what the tool does and when to use it. */
  readonly description?: string
  /** The arguments by name, each with its type, its default and `describe('…')`; none without it. */
  readonly args?: A
  /** Does it. What it answers, or what it throws, is what the model sees next. */
  run(args: ToolArguments<A>): unknown
}

/**
 * @example
 * const search = new dspy.Tool({
 *   name: 'search',
 *   description: 'Finds passages about a query.',
 *   args: z.object({ query: z.string(), k: z.int().default(3) }),
 *   run: ({ query, k }) => index.search(query, k),
 * })
 */
export class Tool<A extends ZodObjectLike | undefined = ZodObjectLike | undefined> {
  readonly name: string
  readonly description: string
  /** The JSON schema of each argument, as the model is shown it. */
  readonly args: Readonly<Record<string, JsonSchema>>
  readonly #schema: ZodObjectLike | undefined
  /** After the schema's check: tools of any arguments stand in one list. */
  readonly #run: (args: Loose) => unknown

  constructor(options: ToolOptions<A>) {
    const { name = options.run?.name ?? '', description = '', args, run } = options
    if (typeof run !== 'function') throw new OptionError(`The tool '${name}' needs a function \`run\`, but it is ${String(run)}.`)
    if (name === '' || name === 'run') throw new OptionError("A tool needs a name: new dspy.Tool({ name: 'search', … }).")
    if (args !== undefined && !(isZod(args) && 'shape' in args)) {
      throw new OptionError(`The arguments of the tool '${name}' must be a z.object({ … }).`)
    }
    this.name = name
    this.description = description
    this.args = args ? argumentSchemas(args) : {}
    this.#schema = args
    this.#run = run.bind(options) as (args: Loose) => unknown
  }

  /** Checks the arguments, fills defaults, runs. @throws OptionError for arguments that don't fit; what the tool throws */
  async call(args: Loose = {}): Promise<unknown> {
    const unknown = Object.keys(args).find((key) => !Object.hasOwn(this.args, key))
    if (unknown !== undefined) throw new OptionError(`Arg ${unknown} is not in the tool's args.`)
    return watched('Tool', { instance: this, inputs: args }, async () => this.#run(this.#read(args)))
  }

  #read(args: Loose): Loose {
    if (!this.#schema) return args
    const { success, data, error } = this.#schema.safeParse(args)
    if (success) return data as Loose
    const issues = (error?.issues ?? []).map(({ path, message }) => `Arg ${path.join('.')} is invalid: ${message}.`)
    throw new OptionError(issues.join(' '))
  }

  /** As an agent's instructions name it. */
  toString(): string {
    const description = this.description === '' ? '.' : `, whose description is <desc>${this.description}</desc>.`
    return `${this.name}${description.replaceAll('\n', '  ')} It takes arguments ${pyRepr(this.args)}.`
  }
}

/**
 * A tool of a plain function: its name is the function's, its description the schema's.
 * @example dspy.tool(z.object({ city: z.string() }).describe('Tells the weather.'), function weather({ city }) { return `Sunny in ${city}.` })
 */
export function tool<const A extends ZodObjectLike>(args: A, run: (args: ToolArguments<A>) => unknown): Tool<A> {
  const described = args as { description?: string }
  return new Tool<A>({ name: run.name, description: described.description ?? '', args, run })
}

/** The schema of each argument as dspy prints it: pydantic's for the type, definitions in their places, then default and description. */
function argumentSchemas(args: ZodObjectLike): Record<string, JsonSchema> {
  return Object.fromEntries(
    Object.entries(args.shape).map(([name, schema]) => {
      const { type, description, constraints, ...rest } = fieldFromZod(schema, name)
      const fields = [{ name, type, required: true, constraints }]
      const { properties, $defs } = jsonSchema({ kind: 'model', name: 'Arguments', fields })
      const { title: _, ...own } = (properties as Record<string, JsonSchema>)[name]!
      const shown = {
        ...(arranged(own, ($defs ?? {}) as Record<string, JsonSchema>) as JsonSchema),
        ...('default' in rest ? { default: rest.default ?? null } : {}),
        ...(description === undefined ? {} : { description }),
      }
      return [name, shown]
    }),
  )
}

/** A schema without references; keys in alphabetical order, as pydantic has them, but for the names of properties. */
function arranged(value: unknown, definitions: Record<string, JsonSchema>, names = false): unknown {
  if (Array.isArray(value)) return value.map((item) => arranged(item, definitions))
  if (typeof value !== 'object' || value === null) return value
  const { $ref, ...rest } = value as JsonSchema
  const target = typeof $ref === 'string' ? definitions[$ref.replace('#/$defs/', '')] : undefined
  const entries = Object.entries({ ...target, ...rest })
  if (!names) entries.sort(([a], [b]) => (a < b ? -1 : 1))
  return Object.fromEntries(
    entries.map(([key, item]) => [key, key === 'default' ? item : arranged(item, definitions, key === 'properties')]),
  )
}
