// What a training step is given, checked before anything is computed, whichever engines will compute it.

import { ArborError, ContextWindowExceededError, OptionError } from '../errors'
import type { ModelInfo, TrainSequence } from './engine'

/** Throws OptionError or ContextWindowExceededError naming the sequence that the model can't be trained on. */
export function checkSequences(
  sequences: readonly TrainSequence[],
  { contextLength, vocab }: Pick<ModelInfo, 'contextLength' | 'vocab'>,
): void {
  for (const [i, { prompt, completion }] of sequences.entries()) {
    if (prompt.length === 0 && completion.length > 0)
      throw new OptionError(`Sequence ${i} has no prompt token, so nothing predicts its first completion token.`)
    if (prompt.length + completion.length > contextLength)
      throw new ContextWindowExceededError(
        `Sequence ${i} has ${prompt.length} + ${completion.length} tokens; the model's context holds ${contextLength}. Shorten the prompt or max_tokens.`,
      )
    const isStrange = (token: number) => !(token >= 0 && token < vocab && Number.isInteger(token))
    const stranger = prompt.find(isStrange) ?? completion.find(isStrange)
    if (stranger !== undefined)
      throw new OptionError(`Sequence ${i} holds token ${stranger}; the model's vocabulary has ids 0 to ${vocab - 1}.`)
  }
}

/** Throws ArborError where a loss answered with anything but one finite number per completion token. */
export function checkGradient(name: string, gradient: Float32Array, pairs: number): void {
  if (gradient.length !== pairs)
    throw new ArborError(`The loss returned ${gradient.length} values as ${name} for ${pairs} completion tokens.`)
  const bad = gradient.findIndex((value) => !Number.isFinite(value))
  if (bad >= 0) throw new ArborError(`The loss returned ${gradient[bad]} as ${name}[${bad}]; no update was made.`)
}
