// Text completions: prompts as text or tokens → engine → text, in OpenAI's older shape. Several prompts are sampled at once.

import { randomUUID } from 'node:crypto'
import type { CompletionRequest } from '../protocol'
import { HttpError } from './http-errors'
import { type Choice, resolveModel, type SampleControl, type SamplePlan, sampleChoices, textTokens } from './sample'
import { choiceSeeds, refuseUnheeded, samplingParams, stopStrings, tokensWithin } from './sampling-request'
import type { Services } from './services'

export interface CompletionPlan {
  readonly id: string
  readonly created: number // unix seconds
  readonly request: CompletionRequest
  readonly prompts: readonly PromptPlan[]
}

export interface PromptPlan extends SamplePlan {
  /** The prompt as it is echoed; '' unless that is asked for. */
  readonly echo: string
}

/** OpenAI's default. */
const MAX_TOKENS = 16
const MOST_CHOICES = 1024

/** @throws HttpError or ContextWindowExceededError for a request that cannot be answered */
export function planCompletions(services: Services, request: CompletionRequest): CompletionPlan {
  const target = resolveModel(services, request.model)
  refuseUnheeded(request)
  const choices = request.seeds?.length ?? request.n ?? 1
  if ((request.best_of ?? choices) !== choices) throw unsupported('best_of', 'Ask for n completions and choose among them.')
  if (request.suffix) throw unsupported('suffix', 'Leave it out.')
  const id = `cmpl-${randomUUID().replaceAll('-', '')}`
  const prompts = promptList(request).map((prompt) => promptTokens(services, prompt))
  if (prompts.length * choices > MOST_CHOICES)
    throw new HttpError(
      400,
      `${prompts.length} prompts with ${choices} completions each; at most ${MOST_CHOICES} in one request.`,
    )
  const constraint = services.constraints.of(request.response_format)
  const plans = prompts.map(
    (prompt, i): PromptPlan => ({
      id,
      firstIndex: i * choices,
      stops: stopStrings(request),
      constraint,
      ready: target.ready,
      echo: request.echo === true ? services.codec.decode(prompt) : '',
      generate: {
        policy: target.policy,
        prompt,
        seeds: choiceSeeds(request, prompt),
        maxNewTokens: tokensWithin(request.max_tokens ?? MAX_TOKENS, prompt.length, target.contextLength),
        sampling: samplingParams(request),
        stopTokenIds: services.codec.stopTokenIds,
        ...(request.logprobs ? { topLogprobs: request.logprobs } : {}),
      },
    }),
  )
  return { id, created: Math.floor(Date.now() / 1000), request, prompts: plans }
}

function unsupported(param: string, instead: string): HttpError {
  return new HttpError(400, `${param} is not supported here. ${instead}`, { code: 'unsupported_parameter', param })
}

/** A list of numbers is one prompt, any other list several. */
function promptList({ prompt }: CompletionRequest): (string | readonly number[])[] {
  if (typeof prompt === 'string') return [prompt]
  return typeof prompt[0] === 'number' ? [prompt as number[]] : (prompt as (string | number[])[])
}

function promptTokens(services: Services, prompt: string | readonly number[]): readonly number[] {
  const tokens = typeof prompt === 'string' ? services.codec.encode(prompt, { addSpecial: true }) : prompt
  if (tokens.length === 0) throw new HttpError(400, 'A prompt is empty: there is nothing to go on with.', { param: 'prompt' })
  const stranger = tokens.find((token) => token >= services.model.vocab)
  if (stranger === undefined) return tokens
  throw new HttpError(400, `A prompt has the token ${stranger}; the model's are 0 to ${services.model.vocab - 1}.`, {
    param: 'prompt',
  })
}

/** All choices, in order of their index. When one prompt fails, the others end too. */
export async function sampleCompletions(services: Services, plan: CompletionPlan, control: SampleControl): Promise<Choice[]> {
  const ended = new AbortController()
  const end = () => ended.abort()
  control.signal.addEventListener('abort', end, { once: true })
  if (control.signal.aborted) end()
  const each = plan.prompts.map((prompt) => sampleChoices(services, prompt, { ...control, signal: ended.signal }))
  try {
    return (await Promise.all(each)).flat()
  } catch (error) {
    end()
    await Promise.allSettled(each)
    throw error
  } finally {
    control.signal.removeEventListener('abort', end)
  }
}

/** OpenAI's `text_completion`. */
export async function completionBody(
  services: Services,
  plan: CompletionPlan,
  choices: readonly Choice[],
): Promise<Record<string, unknown>> {
  const prompts = await promptLogprobs(services, plan)
  return {
    id: plan.id,
    object: 'text_completion',
    created: plan.created,
    model: plan.request.model,
    choices: choices.map((choice) => ({
      index: choice.index,
      text: promptOf(plan, choice).echo + choice.text.text,
      logprobs: legacyLogprobs(services, plan, { choice, prompt: prompts[plan.prompts.indexOf(promptOf(plan, choice))] }),
      finish_reason: choice.finishReason,
    })),
    usage: completionUsage(plan, choices),
  }
}

export function completionUsage(plan: CompletionPlan, choices: readonly Choice[]): Record<string, number> {
  const prompt = plan.prompts.reduce((sum, { generate }) => sum + generate.prompt.length, 0)
  const completion = choices.reduce((sum, choice) => sum + choice.tokens.length, 0)
  return { prompt_tokens: prompt, completion_tokens: completion, total_tokens: prompt + completion }
}

function promptOf({ prompts }: CompletionPlan, { index }: Choice): PromptPlan {
  return prompts.find(({ firstIndex, generate }) => index < firstIndex + generate.seeds.length)!
}

/** Logprobs at temperature 1 of each prompt's tokens after the first, where they are echoed. */
async function promptLogprobs(services: Services, { request, prompts }: CompletionPlan): Promise<(Float32Array | undefined)[]> {
  if (request.echo !== true || request.logprobs == null) return []
  const rows = prompts.map(({ generate: { prompt } }) => ({ prompt: prompt.slice(0, 1), completion: prompt.slice(1) }))
  const asked = rows.filter(({ completion }) => completion.length > 0)
  const stats = await services.engine.logprobs(prompts[0]!.generate.policy, asked, { temperature: 1 })
  return rows.map((row) => (row.completion.length === 0 ? new Float32Array() : stats[asked.indexOf(row)]!.logprobs))
}

/**
 * OpenAI's older `logprobs`: lists side by side. Each token's alternatives hold the token itself; those of echoed tokens are not known, so null.
 * `text_offset` counts characters from the beginning of the choice's text.
 */
export function legacyLogprobs(
  services: Services,
  plan: CompletionPlan,
  { choice, prompt }: { choice: Choice; prompt?: Float32Array | undefined },
): Record<string, unknown> | null {
  if (plan.request.logprobs == null) return null
  const { generate, echo } = promptOf(plan, choice)
  const { plainLogprobs, topLogprobs } = choice.completion
  const decode = (token: number) => services.codec.decode([token])
  const echoed = prompt
    ? generate.prompt.map((token, i) => ({ text: decode(token), logprob: prompt[i - 1] ?? null, top: null }))
    : []
  const sampled = textTokens(services, choice).map(({ text }, i) => {
    const top = (topLogprobs?.[i] ?? []).map((entry) => [decode(entry.token), entry.logprob])
    return { text, logprob: plainLogprobs[i]!, top: Object.fromEntries([...top.reverse(), [text, plainLogprobs[i]!]]) }
  })
  const all = [...echoed, ...sampled]
  let offset = prompt ? 0 : echo.length
  return {
    tokens: all.map(({ text }) => text),
    token_logprobs: all.map(({ logprob }) => logprob),
    top_logprobs: all.map(({ top }) => top),
    text_offset: all.map(({ text }) => (offset += text.length) - text.length),
  }
}
