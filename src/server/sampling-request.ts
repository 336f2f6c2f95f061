// The options that chat and text completions share, from OpenAI's and vLLM's names to the engine's.

import { hash, randomInt } from 'node:crypto'
import type { SamplingParams } from '../engine/engine'
import { ContextWindowExceededError } from '../errors'
import type { ChatRequest, CompletionRequest } from '../protocol'
import { HttpError } from './http-errors'

export type SamplingRequest = ChatRequest | CompletionRequest

/** OpenAI's values where a request has none: temperature 1, everything else off. */
export function samplingParams(request: SamplingRequest): SamplingParams {
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
export function choiceSeeds(request: SamplingRequest, prompt: readonly number[]): number[] {
  const tokens = hash('sha256', Int32Array.from(prompt), 'hex')
  const hashed = (seed: number, i: number) => hash('sha256', `${seed}/${i}/${tokens}`, 'buffer').readUIntBE(0, 6)
  if (request.seeds) return request.seeds.map((seed) => hashed(seed, 0))
  const seed = request.seed ?? randomInt(2 ** 47)
  return Array.from({ length: request.n ?? 1 }, (_, i) => hashed(seed, i))
}

export function stopStrings(request: SamplingRequest): string[] {
  const stop = request.stop ?? []
  return (typeof stop === 'string' ? [stop] : stop).filter((text) => text !== '')
}

/**
 * How many tokens may be sampled: what was asked for, at most the rest of the context.
 * @throws ContextWindowExceededError where the prompt leaves no room; its wording is what clients look for.
 */
export function tokensWithin(asked: number | null | undefined, promptTokens: number, contextLength: number): number {
  const room = contextLength - promptTokens
  if (room < 1)
    throw new ContextWindowExceededError(
      `This model's maximum context length is ${contextLength} tokens. However, your messages resulted in ${promptTokens} tokens. Shorten the messages (fewer demos, a shorter question).`,
      { status: 400 },
    )
  return Math.min(asked ?? room, room)
}

/** Fields that would change the answer and that we can't follow. @throws HttpError 400 */
export function refuseUnheeded(request: SamplingRequest): void {
  const refuse = (param: string, instead: string) => {
    throw new HttpError(400, `${param} is not supported here. ${instead}`, { code: 'unsupported_parameter', param })
  }
  if (Array.isArray(request['tools']) && request['tools'].length > 0)
    refuse('tools', 'Describe them in the messages, and ask for the call by response_format.')
  if (request.frequency_penalty) refuse('frequency_penalty', 'Use repetition_penalty, or leave it out.')
  if (request.presence_penalty) refuse('presence_penalty', 'Use repetition_penalty, or leave it out.')
  if (Object.keys(request.logit_bias ?? {}).length > 0) refuse('logit_bias', 'Leave it out.')
}
