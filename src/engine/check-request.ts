// What a request must be before it may join the batch: one that fails later would take everybody in flight with it.

import { ContextWindowExceededError, OptionError } from '../errors'
import type { GenerateRequest } from './engine'

/** Throws a clear error, or answers how many new tokens there can be: what was asked for, as far as the context goes. */
export function checkRequest(
  request: GenerateRequest,
  model: { readonly contextLength: number; readonly vocab: number },
): number {
  const { prompt, maxNewTokens, seeds, sampling } = request
  if (!Number.isInteger(maxNewTokens) || maxNewTokens < 0)
    throw new OptionError(`maxNewTokens is ${maxNewTokens}; it must be a whole number from 0 up.`)
  const seed = seeds.find((value) => !Number.isSafeInteger(value))
  if (seed !== undefined) throw new OptionError(`A seed is ${seed}; it must be a whole number below 2^53.`)
  checkRange('temperature', sampling.temperature, [0, Number.MAX_VALUE])
  checkRange('topK', sampling.topK, [0, 2 ** 31 - 1])
  checkRange('topP', sampling.topP, [0, 1])
  checkRange('minP', sampling.minP, [0, 1])
  checkRange('repetitionPenalty', sampling.repetitionPenalty, [Number.MIN_VALUE, Number.MAX_VALUE])
  checkPrompt(prompt, model.vocab)
  if (prompt.length + Math.min(maxNewTokens, 1) > model.contextLength)
    throw new ContextWindowExceededError(
      `This model's maximum context length is ${model.contextLength} tokens; the prompt alone has ${prompt.length}. Shorten it.`,
    )
  return Math.min(maxNewTokens, model.contextLength - prompt.length)
}

function checkPrompt(prompt: readonly number[], vocab: number): void {
  if (prompt.length === 0) throw new OptionError('The prompt has no token, so there is nothing to continue.')
  const stranger = prompt.find((token) => !(Number.isInteger(token) && token >= 0 && token < vocab))
  if (stranger !== undefined)
    throw new OptionError(`The prompt holds token ${stranger}; the model's vocabulary has ids 0 to ${vocab - 1}.`)
}

function checkRange(name: string, value: number, [low, high]: readonly [number, number]): void {
  if (value >= low && value <= high) return // false for NaN
  const range = high > 2 ** 30 ? `a number from ${low === Number.MIN_VALUE ? 'above 0' : low} up` : `between ${low} and ${high}`
  throw new OptionError(`${name} is ${value}; it must be ${range}.`)
}
