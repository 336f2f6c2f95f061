// ReAct: an agent that thinks, calls tools, sees what they answer, and at the end says what was asked. Follows dspy/predict/react.py.

import { AdapterParseError, ContextWindowExceededError, OptionError } from '../errors'
import { ChainOfThought } from './chain-of-thought'
import { ChatAdapter } from './chat-adapter'
import { currentSettings } from './context'
import { fieldsOf, Prediction } from './example'
import { type Field, InputField, OutputField } from './field'
import type { Flat, Loose } from './infer-types'
import { Module } from './module'
import { TypeMismatch } from './parse-value'
import { Predict } from './predict'
import { ensureSignature, type InputsOf, type OutputsOf, Signature, type SignatureSource, type Typed } from './signature'
import { type AnyTool, Tool } from './tool'

/** What the agent did, in order: `thought_0`, `tool_name_0`, `tool_args_0`, `observation_0`, `thought_1`, … */
export type Trajectory = Record<string, unknown>

type WithTrajectory<S> = Typed<Flat<InputsOf<S> & { trajectory: string }>, OutputsOf<S>>
export type ReActOutputs<S> = Flat<{ trajectory: Trajectory; reasoning: string } & OutputsOf<S>>

type Step = Typed<Loose, { next_thought: string; next_tool_name: string; next_tool_args: Record<string, unknown> }>

export interface ReActOptions {
  readonly tools: readonly AnyTool[]
  /** Tool calls at most; then the answer is taken from what is known. */
  readonly maxIters?: number
  /** Longest wait for one tool, in milliseconds; what takes longer is an observation too. 0: for ever. */
  readonly toolTimeoutMs?: number
}

const KEYS_PER_STEP = 4
const TRUNCATIONS = 3

/**
 * @example
 * const agent = new dspy.ReAct('question -> answer', { tools: [search], maxIters: 5 })
 * const { answer, trajectory } = await agent.call({ question: 'Who wrote Faust?' })
 */
export class ReAct<const S extends SignatureSource = SignatureSource> extends Module {
  readonly react: Predict<Step>
  readonly extract: ChainOfThought<WithTrajectory<S>>
  readonly maxIters: number
  readonly toolTimeoutMs: number
  /** By name, `finish` among them. */
  readonly tools: ReadonlyMap<string, Tool>

  constructor(signature: S | Signature<S>, { tools, maxIters = 20, toolTimeoutMs = 120_000 }: ReActOptions) {
    super()
    const base = ensureSignature(signature) as unknown as Signature
    if (!(Number.isInteger(maxIters) && maxIters > 0))
      throw new OptionError(`maxIters must be a whole number from 1 on, but it is ${maxIters}.`)
    this.tools = namedTools(tools, base)
    this.maxIters = maxIters
    this.toolTimeoutMs = toolTimeoutMs
    this.react = new Predict(stepSignature(base, this.tools) as unknown as Signature<Step>)
    const whole = base.append('trajectory', InputField(), 'str') as unknown as Signature<WithTrajectory<S>>
    this.extract = new ChainOfThought(whole)
  }

  /** @throws AdapterParseError when a step or the answer can't be read; ContextWindowExceededError when even a cut trajectory doesn't fit */
  async forward(inputs: InputsOf<S>, options: { readonly maxIters?: number } = {}): Promise<Prediction<ReActOutputs<S>>> {
    const trajectory: Trajectory = {}
    const given = fieldsOf(inputs as object)
    const maxIters = options.maxIters ?? this.maxIters
    for (let i = 0; i < maxIters; i++) {
      const step = await this.nextStep(trajectory, given)
      if (!step) break
      trajectory[`thought_${i}`] = step.next_thought
      trajectory[`tool_name_${i}`] = step.next_tool_name
      trajectory[`tool_args_${i}`] = step.next_tool_args
      trajectory[`observation_${i}`] = await this.observe(step.next_tool_name, step.next_tool_args)
      if (step.next_tool_name === 'finish') break
    }
    const answer = await this.callTruncating(this.extract as unknown as Predict, trajectory, given)
    return new Prediction({ trajectory, ...fieldsOf(answer) }) as unknown as Prediction<ReActOutputs<S>>
  }

  /** The model's next move; null when it chose no valid tool, or the trajectory fits no more: then the answer is due. */
  private async nextStep(
    trajectory: Trajectory,
    given: Loose,
  ): Promise<Prediction<{ next_thought: string; next_tool_name: string; next_tool_args: Loose }> | null> {
    try {
      return (await this.callTruncating(this.react as unknown as Predict, trajectory, given)) as never
    } catch (error) {
      if (!(error instanceof ContextWindowExceededError) && !isBadChoice(error)) throw error
      currentSettings().onWarning?.(
        `ReAct ends the trajectory after ${Object.keys(trajectory).length / KEYS_PER_STEP} steps: ${(error as Error).message}`,
      )
      return null
    }
  }

  /** What the tool answers, or how it failed, for the model to see. */
  private async observe(name: string, args: Loose): Promise<unknown> {
    const { signal } = currentSettings()
    try {
      const tool = this.tools.get(name)
      if (!tool) throw new OptionError(`There is no tool '${name}'; the tools are ${[...this.tools.keys()].join(', ')}.`)
      return await withLimits(tool.call(args), { name, timeoutMs: this.toolTimeoutMs, signal })
    } catch (error) {
      signal?.throwIfAborted()
      return `Execution error in ${name}: ${errorText(error)}`
    }
  }

  /** Calls a predictor; where the context is too small, the oldest tool call is forgotten and it is asked again. */
  private async callTruncating(predictor: Predict, trajectory: Trajectory, given: Loose): Promise<Prediction> {
    let last: unknown = null
    for (let attempt = 0; attempt < TRUNCATIONS; attempt++) {
      try {
        return await predictor.call({ ...given, trajectory: formatTrajectory(trajectory) } as never)
      } catch (error) {
        if (!(error instanceof ContextWindowExceededError)) throw error
        currentSettings().onWarning?.('ReAct: the trajectory exceeds the context window; its oldest tool call is left out.')
        last = error
        this.truncateTrajectory(trajectory, error)
      }
    }
    throw new ContextWindowExceededError(`The trajectory exceeded the context window even after ${TRUNCATIONS} cuts of it.`, {
      cause: last,
    })
  }

  /** Drops the oldest tool call of the trajectory, in place; override it to cut otherwise. @throws ContextWindowExceededError when there is only one */
  protected truncateTrajectory(trajectory: Trajectory, cause?: unknown): void {
    const keys = Object.keys(trajectory)
    if (keys.length <= KEYS_PER_STEP) {
      throw new ContextWindowExceededError(
        'The prompt exceeds the context window, and the trajectory, of one tool call at most, leaves nothing to cut.',
        { cause },
      )
    }
    for (const key of keys.slice(0, KEYS_PER_STEP)) delete trajectory[key]
  }
}

/** The trajectory as the adapter in force writes fields. */
function formatTrajectory(trajectory: Trajectory): string {
  const fields = Object.keys(trajectory).map(
    (name): Field => ({ name, role: 'input', type: { kind: 'str' }, desc: `\${${name}}`, prefix: '' }),
  )
  const adapter = currentSettings().adapter ?? new ChatAdapter()
  return adapter.formatUserMessage(Signature.fromFields(fields, ''), trajectory)
}

/** Our own refusals go by the name that dspy's have, since prompts speak of Python's types. */
function errorText(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  return `${error instanceof OptionError ? 'ValueError' : error.name}: ${error.message}`
}

/** A step that names no tool of ours, or whose arguments are no object: readable, but not to be carried out. */
function isBadChoice(error: unknown): boolean {
  if (error instanceof TypeMismatch) return true
  return error instanceof AdapterParseError && error.cause instanceof TypeMismatch
}

function namedTools(tools: readonly AnyTool[], signature: Signature): Map<string, Tool> {
  const named = new Map<string, Tool>()
  for (const given of tools) {
    const tool = given instanceof Tool ? given : new Tool(given)
    if (named.has(tool.name)) throw new OptionError(`Two tools are called '${tool.name}'; a tool's name must be its own.`)
    named.set(tool.name, tool)
  }
  if (named.has('finish')) throw new OptionError("No tool may be called 'finish': that is how the agent says it is done.")
  const outputs = fieldNames(signature.outputFields)
  const description =
    'Marks the task as complete. That is, signals that all information for producing the outputs, i.e. ' +
    `${outputs}, are now available to be extracted.`
  return named.set('finish', new Tool({ name: 'finish', description, run: () => 'Completed.' }))
}

function stepSignature(signature: Signature, tools: ReadonlyMap<string, Tool>): Signature {
  const names = [...tools.keys()]
  const list = [...tools.values()].map((tool, i) => `(${i + 1}) ${tool}`)
  const step = Signature.fromFields(signature.inputFields, [...agentInstructions(signature), ...list, ARGS_NOTE].join('\n'))
    .append('trajectory', InputField(), 'str')
    .append('next_thought', OutputField(), 'str')
    .append('next_tool_name', OutputField(), 'str')
    .append('next_tool_args', OutputField(), 'dict[str, Any]') as unknown as Signature
  const fields = step.fields.map((field) =>
    field.name === 'next_tool_name' ? { ...field, type: { kind: 'literal', values: names } as const } : field,
  )
  return Signature.fromFields(fields, step.instructions)
}

const ARGS_NOTE = 'When providing `next_tool_args`, the value inside the field must be in JSON format'

/** dspy's words: a prompt must equal its own byte for byte. */
function agentInstructions(signature: Signature): string[] {
  return [
    ...(signature.instructions === '' ? [] : [`${signature.instructions}\n`]),
    `You are an Agent. In each episode, you will be given the fields ${fieldNames(signature.inputFields)} as input. And you can see your past trajectory so far.`,
    `Your goal is to use one or more of the supplied tools to collect any necessary information for producing ${fieldNames(signature.outputFields)}.\n`,
    'To do this, you will interleave next_thought, next_tool_name, and next_tool_args in each turn, and also when finishing the task.',
    'After each tool call, you receive a resulting observation, which gets appended to your trajectory.\n',
    'When writing next_thought, you may reason about the current situation and plan for future steps.',
    'When selecting the next_tool_name and its next_tool_args, the tool must be one of:\n',
  ]
}

function fieldNames(fields: readonly Field[]): string {
  return fields.map((field) => `\`${field.name}\``).join(', ')
}

/** The result, unless it takes too long or the context is aborted first. */
async function withLimits<T>(
  result: Promise<T>,
  { name, timeoutMs, signal }: { name: string; timeoutMs: number; signal: AbortSignal | null },
): Promise<T> {
  let undo = () => {}
  const limit = new Promise<never>((_, reject) => {
    const late = () => reject(new OptionError(`'${name}' took longer than ${timeoutMs / 1000} s`))
    const timer = timeoutMs > 0 ? setTimeout(late, timeoutMs) : undefined
    const abort = () => reject(signal?.reason)
    signal?.addEventListener('abort', abort, { once: true })
    undo = () => {
      clearTimeout(timer)
      signal?.removeEventListener('abort', abort)
    }
  })
  return Promise.race([result, limit]).finally(undo)
}
