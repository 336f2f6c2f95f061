// A sample of a step → the tokens to train. Found by completion id, else by exact text, else tokenized (Python clients send text alone).

import type { TrainSequence } from '../engine/engine'
import { OptionError } from '../errors'
import type { Message, StepSample } from '../protocol'
import { type CompletionStore, type StoredCompletion, sameTokens } from './completion-store'
import type { TextCodec } from './services'

export interface TrainingRow extends TrainSequence {
  readonly reward: number
  /** Of each reward function, where the client sent them apart. */
  readonly rewards: readonly (number | null)[] | null
  readonly text: string
  readonly source: 'id' | 'text' | 'tokenized'
  readonly truncated: boolean
  /** Behaviour policy's logprobs; null where the sampled prompt, the temperature or the tokens are not those trained. */
  readonly stored: StoredLogprobs | null
  /** True where the trained prompt is not the sampled one (demos left out). */
  readonly otherPrompt: boolean
}

export interface StoredLogprobs {
  readonly logprobs: readonly number[]
  readonly policyVersion: number
  /** How it was sampled: see StoredCompletion. */
  readonly altered: boolean
  readonly constrained: boolean
}

export interface RowContext {
  readonly codec: TextCodec
  readonly completions: CompletionStore
  /** The job's policy; a rollout of the untouched base counts as one of its version 0. */
  readonly policy: string
  readonly temperature: number
  /** Whether the policy started as the base. */
  readonly onBase: boolean
}

/** Rows of the samples, in their order. Equal messages in a row are tokenized once. */
export function trainingRows(samples: readonly StepSample[], context: RowContext): TrainingRow[] {
  let prompt: Prompt | null = null
  return samples.map((sample) => {
    if (sample.messages !== prompt?.messages) prompt = promptOf(sample.messages, context)
    return trainingRow(sample, prompt, context)
  })
}

interface Prompt {
  readonly messages: readonly Message[]
  readonly text: string
  readonly tokens: readonly number[]
}

function promptOf(messages: readonly Message[], { codec }: RowContext): Prompt {
  const text = codec.render(messages, { addGenerationPrompt: true })
  return { messages, text, tokens: codec.encode(text) }
}

function trainingRow(sample: StepSample, prompt: Prompt, context: RowContext): TrainingRow {
  const message = completionMessage(sample)
  const byId = sample.completion_id === undefined ? null : context.completions.get(sample.completion_id)
  const found = byId ?? context.completions.findText(message.content, prompt.tokens, context.policy)
  const common = { prompt: prompt.tokens, reward: sample.reward, rewards: sample.rewards ?? null, text: message.content }
  if (!found) {
    const completion = tokenizeCompletion(sample.messages, message, prompt.text, context.codec)
    return { ...common, completion, source: 'tokenized', truncated: false, stored: null, otherPrompt: false }
  }
  const otherPrompt = !sameTokens(found.prompt, prompt.tokens)
  return {
    ...common,
    completion: found.tokens,
    source: byId ? 'id' : 'text',
    truncated: found.truncated,
    stored: otherPrompt ? null : storedLogprobs(found, context),
    otherPrompt,
  }
}

function storedLogprobs(found: StoredCompletion, context: RowContext): TrainingRow['stored'] {
  const own = found.policy === context.policy
  const base = context.onBase && found.policy === null && found.policyVersion === 0
  if ((!own && !base) || found.temperature !== context.temperature) return null
  const { logprobs, altered, constrained } = found
  return { logprobs, policyVersion: own ? found.policyVersion : 0, altered, constrained }
}

/** The one assistant message of a sample. Throws OptionError for a list of several. */
export function completionMessage(sample: StepSample): Message {
  const { completion } = sample
  if (!Array.isArray(completion)) return completion
  if (completion.length > 1)
    throw new OptionError(
      `A sample's completion has ${completion.length} messages; one assistant message is supported. Send each turn as a sample of its own.`,
    )
  return completion[0]!
}

/**
 * Arbor's way: the template's text with the completion, minus the prompt's text. What the template puts behind the end-of-turn token
 * (a line break) is left out, since no policy samples it.
 */
export function tokenizeCompletion(
  messages: readonly Message[],
  message: Message,
  prompt: string,
  codec: TextCodec,
): readonly number[] {
  const whole = codec.render([...messages, message], { addGenerationPrompt: false })
  const tokens = codec.encode(whole.startsWith(prompt) ? whole.slice(prompt.length) : message.content)
  const end = tokens.findIndex((token) => codec.stopTokenIds.includes(token))
  if (end >= 0) return tokens.slice(0, end + 1)
  return whole.startsWith(prompt) ? tokens : [...tokens, ...codec.stopTokenIds.slice(0, 1)]
}
