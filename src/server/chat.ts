// A chat completion: messages → template → tokens → engine → text, in OpenAI's shape.

import { randomUUID } from 'node:crypto'
import type { ChatRequest, Message } from '../protocol'
import { HttpError } from './http-errors'
import { type Choice, resolveModel, type SamplePlan, textTokens } from './sample'
import { choiceSeeds, refuseUnheeded, samplingParams, stopStrings, tokensWithin } from './sampling-request'
import type { Services } from './services'

export interface ChatPlan extends SamplePlan {
  readonly created: number // unix seconds
  readonly request: ChatRequest
}

/** @throws HttpError or ContextWindowExceededError for a request that cannot be answered */
export function planChat(services: Services, request: ChatRequest): ChatPlan {
  const target = resolveModel(services, request.model)
  refuseUnheeded(request)
  const text = services.codec.render(textMessages(request), { addGenerationPrompt: true })
  const prompt = services.codec.encode(text)
  const asked = request.max_completion_tokens ?? request.max_tokens
  return {
    id: `chatcmpl-${randomUUID().replaceAll('-', '')}`,
    firstIndex: 0,
    created: Math.floor(Date.now() / 1000),
    request,
    stops: stopStrings(request),
    constraint: services.constraints.of(request.response_format),
    ready: target.ready,
    generate: {
      policy: target.policy,
      prompt,
      seeds: choiceSeeds(request, prompt),
      maxNewTokens: tokensWithin(asked, prompt.length, target.contextLength),
      sampling: samplingParams(request),
      stopTokenIds: services.codec.stopTokenIds,
      ...(request.logprobs === true && request.top_logprobs ? { topLogprobs: request.top_logprobs } : {}),
    },
  }
}

/** Messages with plain text. A part that is no text (an image) is refused. */
function textMessages(request: ChatRequest): Message[] {
  return request.messages.map((message, i) => ({ ...message, content: plainText(message.content, i) }))
}

function plainText(content: ChatRequest['messages'][number]['content'], index: number): string {
  if (content === null) return ''
  if (typeof content === 'string') return content
  return content
    .map((part) => {
      if (part.type === 'text' && part.text !== undefined) return part.text
      throw new HttpError(400, `messages[${index}] has a part of type "${part.type}"; this model reads text only.`, {
        param: `messages.${index}.content`,
      })
    })
    .join('')
}

/** OpenAI's `chat.completion`. */
export function chatBody(services: Services, plan: ChatPlan, choices: readonly Choice[]): Record<string, unknown> {
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

export function chatUsage(plan: ChatPlan, choices: readonly Choice[]): Record<string, number> {
  const prompt = plan.generate.prompt.length
  const completion = choices.reduce((sum, choice) => sum + choice.tokens.length, 0)
  return { prompt_tokens: prompt, completion_tokens: completion, total_tokens: prompt + completion }
}

/** OpenAI's `logprobs` field: logprobs at temperature 1 of the tokens that carry the text, null unless asked for. */
export function choiceLogprobs(services: Services, plan: ChatPlan, choice: Choice): Record<string, unknown> | null {
  if (plan.request.logprobs !== true) return null
  const described = (token: number, logprob: number) => {
    const text = services.codec.decode([token])
    return { token: text, logprob, bytes: text.includes('\uFFFD') ? null : [...Buffer.from(text)] }
  }
  const { plainLogprobs, topLogprobs } = choice.completion
  const content = textTokens(services, choice).map(({ token }, i) => {
    const top = (topLogprobs?.[i] ?? []).map((entry) => described(entry.token, entry.logprob))
    return { ...described(token, plainLogprobs[i]!), top_logprobs: top }
  })
  return { content, refusal: null }
}
