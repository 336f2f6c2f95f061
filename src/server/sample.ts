// From a plan to its choices: tokens from the engine, their text, stop strings, a grammar where one is asked for. What was sampled is kept for training.

import type { Completion, GenerateControl, GenerateRequest } from '../engine/engine'
import { bareModelName } from '../protocol'
import { type Constraint, Course } from './constrain/constraint'
import { HttpError } from './http-errors'
import { isAltered } from './sampling-request'
import { type Services, servedJob, servedNames } from './services'
import { CompletionText } from './stop-text'

/** Completions of one prompt, made ready: everything that can be wrong with the request has been looked at. */
export interface SamplePlan {
  /** Of the response; with the choice's index it names a completion. */
  readonly id: string
  /** Index of the first choice in the response. */
  readonly firstIndex: number
  readonly generate: GenerateRequest
  readonly stops: readonly string[]
  readonly constraint: Constraint | null
  /** Resolves when the steps posted before this request are trained: it samples from the policy they made. */
  readonly ready: () => Promise<void>
}

export interface Choice {
  readonly index: number
  readonly text: CompletionText
  readonly tokens: readonly number[]
  readonly completion: Completion
  readonly finishReason: 'stop' | 'length'
}

export interface SampleControl {
  readonly signal: AbortSignal
  /** Called after each step of a choice with its text so far. */
  readonly onText?: (index: number, text: CompletionText) => void
}

export interface Target {
  readonly policy: string | null
  readonly contextLength: number
  readonly ready: () => Promise<void>
}

/** The policy behind a model name: the base, or a job's current policy. */
export function resolveModel(services: Services, name: string): Target {
  const bare = bareModelName(name)
  if (services.modelNames.includes(bare))
    return { policy: null, contextLength: services.model.contextLength, ready: async () => {} }
  const job = servedJob(services, bare)
  if (job) return { policy: job.id, contextLength: job.contextLength, ready: () => job.trained() }
  throw new HttpError(404, `The model "${bare}" is not served here. Served: ${servedNames(services).join(', ')}.`, {
    code: 'model_not_found',
    param: 'model',
  })
}

/** Samples all choices of a plan and keeps them in the completion store. */
export async function sampleChoices(services: Services, plan: SamplePlan, { signal, onText }: SampleControl): Promise<Choice[]> {
  await plan.ready()
  const { generate, constraint, stops } = plan
  const { codec } = services
  const texts = generate.seeds.map(() => new CompletionText(codec.stream(), stops, (tokens) => codec.decode(tokens)))
  const courses = constraint ? generate.seeds.map(() => new Course(constraint, generate.maxNewTokens)) : null
  const onTokens: GenerateControl['onTokens'] = (index, tokens) => {
    const text = texts[index]!
    text.feed(tokens)
    onText?.(plan.firstIndex + index, text)
    return text.stopped ? 'stop' : undefined
  }
  const completions = await services.engine.generate(generate, {
    signal,
    ...((stops.length > 0 || onText !== undefined) && { onTokens }),
    ...(courses && { allowedTokens: (index, tokens) => courses[index]!.next(tokens) }),
  })
  if (signal.aborted) throw new HttpError(499, 'The client closed the connection.', { code: 'client_closed_request' })
  return completions.map((completion, i) => {
    const text = texts[i]!
    text.finish(completion.tokens)
    const finishReason = text.stopped || completion.finishReason === 'stop' ? 'stop' : 'length'
    const tokens = completion.tokens.slice(0, text.tokenCount)
    const choice: Choice = { index: plan.firstIndex + i, text, tokens, completion, finishReason }
    keep(services, plan, choice, courses?.[i]?.hurried ?? false)
    return choice
  })
}

/** @param hurried a grammar brought it to its end because the tokens ran out: for training that is a completion cut short */
function keep(services: Services, { id, generate, constraint }: SamplePlan, choice: Choice, hurried: boolean): void {
  const { sampling, policy, prompt } = generate
  if (policy !== null) services.jobs.find(policy)?.sampled(prompt, constraint !== null)
  services.completions.add({
    id: `${id}#${choice.index}`,
    policy,
    policyVersion: choice.completion.policyVersion,
    prompt,
    tokens: choice.tokens,
    logprobs: choice.completion.logprobs.slice(0, choice.tokens.length),
    temperature: sampling.temperature > 0 ? sampling.temperature : 1,
    text: choice.text.text,
    truncated: choice.finishReason === 'length' || hurried,
    altered: isAltered(sampling),
    constrained: constraint !== null,
  })
}

/** The tokens that carry a choice's text: without the one that ended it, and those of a stop string. */
export function textTokens(services: Services, choice: Choice): { readonly token: number; readonly text: string }[] {
  const found = []
  let length = 0
  for (const [i, token] of choice.tokens.entries()) {
    const ends = i === choice.tokens.length - 1 && services.codec.stopTokenIds.includes(token)
    if (ends || (choice.text.stopped && length >= choice.text.text.length)) break
    found.push({ token, text: services.codec.decode([token]) })
    length += choice.text.tokenTexts[i]?.length ?? 0 // counts only where a stop string cut the text
  }
  return found
}
