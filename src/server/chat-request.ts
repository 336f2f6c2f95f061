// The options of a chat request, from OpenAI's and vLLM's names to the engine's.

import { createHash, randomInt } from 'node:crypto'
import type { SamplingParams } from '../engine/engine'
import { ContextWindowExceededError } from '../errors'
import type { ChatRequest, Message } from '../protocol'
import { HttpError } from './http-errors'

/** OpenAI's values where a request has none: temperature 1, everything else off. */
export function samplingParams(request: ChatRequest): SamplingParams {
  return {
    temperature: request.temperature ?? 1,
    topK: Math.max(0, request.top_k ?? 0),
    topP: request.top_p ?? 1,
    minP: request.min_p ?? 0,
    repetitionPenalty: request.repetition_penalty ?? 1,
  }
}

/** Sampled otherwise than from softmax(logits / T): greedy, truncated or penalised. */
export function isAltered(sampling: SamplingParams): boolean {
  const { temperature, topK, topP, minP, repetitionPenalty } = sampling
  return temperature === 0 || topK > 0 || topP < 1 || minP > 0 || repetitionPenalty !== 1
}

/**
 * Seeds of the `n` choices: hashes of the request's seed, the prompt and the choice's index; random without a seed. The prompt is part of
 * it because people evaluate a whole data set with one seed: with one stream of random numbers for all questions they'd all share its luck.
 * Each of a list of `seeds` gives the first choice of a request of its own.
 */
export function choiceSeeds(request: ChatRequest, prompt: readonly number[]): number[] {
  const tokens = createHash('sha256').update(Int32Array.from(prompt)).digest('hex')
  const hashed = (seed: number, i: number) => createHash('sha256').update(`${seed}/${i}/${tokens}`).digest().readUIntBE(0, 6)
  if (request.seeds) return request.seeds.map((seed) => hashed(seed, 0))
  const seed = request.seed ?? randomInt(2 ** 47)
  return Array.from({ length: request.n ?? 1 }, (_, i) => hashed(seed, i))
}

export function stopStrings(request: ChatRequest): string[] {
  const stop = request.stop ?? []
  return (typeof stop === 'string' ? [stop] : stop).filter((text) => text !== '')
}

/** Messages with plain text. A part that is no text (an image) is refused. */
export function textMessages(request: ChatRequest): Message[] {
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

/**
 * How many tokens may be sampled: what was asked for, at most the rest of the context.
 * @throws ContextWindowExceededError where the prompt leaves no room; its wording is what clients look for.
 */
export function maxNewTokens(request: ChatRequest, promptTokens: number, contextLength: number): number {
  const room = contextLength - promptTokens
  if (room < 1)
    throw new ContextWindowExceededError(
      `This model's maximum context length is ${contextLength} tokens. However, your messages resulted in ${promptTokens} tokens. Shorten the messages (fewer demos, a shorter question).`,
      { status: 400 },
    )
  return Math.min(request.max_completion_tokens ?? request.max_tokens ?? room, room)
}
