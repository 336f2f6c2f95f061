// A chat completion: messages → template → tokens → engine → text, in OpenAI's shape. Every completion is kept for training.

import { randomUUID } from 'node:crypto'
import type { Completion, GenerateRequest } from '../engine/engine'
import { bareModelName, type ChatRequest } from '../protocol'
import { choiceSeeds, isAltered, maxNewTokens, samplingParams, stopStrings, textMessages } from './chat-request'
import { HttpError } from './http-errors'
import { type Services, servedJob, servedNames } from './services'
import { CompletionText } from './stop-text'

/** A request made ready: everything that can be wrong with it has been looked at. */
export interface ChatPlan {
  readonly id: string
  readonly created: number // unix seconds
  readonly request: ChatRequest
  readonly generate: GenerateRequest
  readonly stops: readonly string[]
  /** Resolves when the steps posted before this request are trained: it samples from the policy they made. */
  readonly ready: () => Promise<void>
}

export interface ChatChoice {
  readonly index: number
  readonly text: CompletionText
  readonly tokens: readonly number[]
  readonly completion: Completion
  readonly finishReason: 'stop' | 'length'
}

/** @throws HttpError or ContextWindowExceededError for a request that cannot be answered */
export function planChat(services: Services, request: ChatRequest): ChatPlan {
  const target = resolveModel(services, request.model)
  const text = services.codec.render(textMessages(request), { addGenerationPrompt: true })
  const prompt = services.codec.encode(text)
  return {
    id: `chatcmpl-${randomUUID().replaceAll('-', '')}`,
    created: Math.floor(Date.now() / 1000),
    request,
    stops: stopStrings(request),
    ready: target.ready,
    generate: {
      policy: target.policy,
      prompt,
      seeds: choiceSeeds(request, prompt),
      maxNewTokens: maxNewTokens(request, prompt.length, target.contextLength),
      sampling: samplingParams(request),
      stopTokenIds: services.codec.stopTokenIds,
      ...(request.logprobs === true && request.top_logprobs ? { topLogprobs: request.top_logprobs } : {}),
    },
  }
}

/** The policy behind a model name: the base, or a job's current policy. */
function resolveModel(
  services: Services,
  name: string,
): { policy: string | null; contextLength: number; ready: () => Promise<void> } {
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

/**
 * Samples all choices of a plan and keeps them in the completion store.
 * @param onText called after each step of a choice with its text so far
 */
export async function sampleChat(
  services: Services,
  plan: ChatPlan,
  control: { signal: AbortSignal; onText?: (index: number, text: CompletionText) => void },
): Promise<ChatChoice[]> {
  await plan.ready()
  const texts = plan.generate.seeds.map(() => new CompletionText(services.codec.stream(), plan.stops))
  const watched = plan.stops.length > 0 || control.onText !== undefined
  const onTokens = (index: number, tokens: readonly number[]): 'stop' | undefined => {
    const text = texts[index]!
    text.feed(tokens)
    control.onText?.(index, text)
    return text.stopped ? 'stop' : undefined
  }
  const completions = await services.engine.generate(plan.generate, { signal: control.signal, ...(watched ? { onTokens } : {}) })
  if (control.signal.aborted) throw new HttpError(499, 'The client closed the connection.', { code: 'client_closed_request' })
  return completions.map((completion, index) => {
    const text = texts[index]!
    text.finish(completion.tokens)
    const finishReason = text.stopped || completion.finishReason === 'stop' ? 'stop' : 'length'
    const choice: ChatChoice = { index, text, tokens: completion.tokens.slice(0, text.tokenCount), completion, finishReason }
    keep(services, plan, choice)
    return choice
  })
}

function keep(services: Services, plan: ChatPlan, choice: ChatChoice): void {
  const { sampling, policy, prompt } = plan.generate
  if (policy !== null) services.jobs.find(policy)?.sampled(prompt, plan.request.response_format != null)
  services.completions.add({
    id: `${plan.id}#${choice.index}`,
    policy,
    policyVersion: choice.completion.policyVersion,
    prompt,
    tokens: choice.tokens,
    logprobs: choice.completion.logprobs.slice(0, choice.tokens.length),
    temperature: sampling.temperature > 0 ? sampling.temperature : 1,
    text: choice.text.text,
    truncated: choice.finishReason === 'length',
    altered: isAltered(sampling),
  })
}

/** OpenAI's `chat.completion`. */
export function chatBody(services: Services, plan: ChatPlan, choices: readonly ChatChoice[]): Record<string, unknown> {
  return {
    id: plan.id,
    object: 'chat.completion',
    created: plan.created,
    model: plan.request.model,
    choices: choices.map((choice) => ({
      index: choice.index,
      message: { role: 'assistant', content: choice.text.text },
      finish_reason: choice.finishReason,
      logprobs: choiceLogprobs(services, plan, choice),
      ...(plan.request.seeds ? { completion_tokens: choice.tokens.length } : {}),
    })),
    usage: chatUsage(plan, choices),
  }
}

export function chatUsage(plan: ChatPlan, choices: readonly ChatChoice[]): Record<string, number> {
  const prompt = plan.generate.prompt.length
  const completion = choices.reduce((sum, choice) => sum + choice.tokens.length, 0)
  return { prompt_tokens: prompt, completion_tokens: completion, total_tokens: prompt + completion }
}

/** OpenAI's `logprobs` field: logprobs at temperature 1 of the tokens that carry the text, null unless asked for. */
export function choiceLogprobs(services: Services, plan: ChatPlan, choice: ChatChoice): Record<string, unknown> | null {
  if (plan.request.logprobs !== true) return null
  const described = (token: number, logprob: number) => {
    const text = services.codec.decode([token])
    return { token: text, logprob, bytes: text.includes('\uFFFD') ? null : [...Buffer.from(text)] }
  }
  const { plainLogprobs, topLogprobs } = choice.completion
  const content = []
  let length = 0
  for (const [i, token] of choice.tokens.entries()) {
    const ends = i === choice.tokens.length - 1 && services.codec.stopTokenIds.includes(token)
    if (ends || (choice.text.stopped && length >= choice.text.text.length)) break
    const top = (topLogprobs?.[i] ?? []).map((entry) => described(entry.token, entry.logprob))
    content.push({ ...described(token, plainLogprobs[i]!), top_logprobs: top })
    length += choice.text.tokenTexts[i]!.length
  }
  return { content, refusal: null }
}
