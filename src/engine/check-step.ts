// What a training step is given, checked before anything is computed, whichever engines will compute it.

import { ArborError, ContextWindowExceededError, OptionError } from '../errors'
import type { ModelInfo, TrainSequence } from './engine'

/** Throws OptionError or ContextWindowExceededError naming the sequence that the model can't be trained on. */
export function checkSequences(
  sequences: readonly TrainSequence[],
  { contextLength, vocab }: Pick<ModelInfo, 'contextLength' | 'vocab'>,
): void {
  let known: readonly number[] | null = null // a group's prompt is one list as a rule
  for (let i = 0; i < sequences.length; i++) {
    const { prompt, completion } = sequences[i]!
    if (prompt.length === 0 && completion.length > 0)
      throw new OptionError(`Sequence ${i} has no prompt token, so nothing predicts its first completion token.`)
    if (prompt.length + completion.length > contextLength)
      throw new ContextWindowExceededError(
        `Sequence ${i} has ${prompt.length} + ${completion.length} tokens; the model's context holds ${contextLength}. Shorten the prompt or max_tokens.`,
      )
    const stranger = (prompt === known ? undefined : strangerOf(prompt, vocab)) ?? strangerOf(completion, vocab)
    known = prompt
    if (stranger !== undefined)
      throw new OptionError(`Sequence ${i} holds token ${stranger}; the model's vocabulary has ids 0 to ${vocab - 1}.`)
  }
}

/** The first that is no token; a loop, as a step's tokens are tens of thousands and a device waits. */
function strangerOf(tokens: readonly number[], vocab: number): number | undefined {
  for (let i = 0; i < tokens.length; i++) {
    const token = tokens[i]!
    if (!(token >= 0 && token < vocab && (token | 0) === token)) return token
  }
  return undefined
}

/** Throws ArborError where a loss answered with anything but one finite number per completion token. */
export function checkGradient(name: string, gradient: Float32Array, pairs: number): void {
  if (gradient.length !== pairs)
    throw new ArborError(`The loss returned ${gradient.length} values as ${name} for ${pairs} completion tokens.`)
  for (let i = 0; i < pairs; i++)
    if (!Number.isFinite(gradient[i]))
      throw new ArborError(`The loss returned ${gradient[i]} as ${name}[${i}]; no update was made.`)
}
