// What the routes work with. main.ts makes it from a model on disk, tests from a FakeEngine.

import type { Engine, ModelInfo } from '../engine/engine'
import type { Message } from '../protocol'
import { renderChat } from './chat-template'
import { parseCheckpointName } from './checkpoint-name'
import type { CompletionStore } from './completion-store'
import type { Constraints } from './constrain/constraints'
import type { EarlierRuns } from './earlier-runs'
import type { FineTuning } from './fine-tuning'
import type { Jobs } from './jobs'
import type { SavedPolicies } from './saved-policies'
import type { Tokenizer } from './tokenizer'

/** Text to tokens and back for one model, with its chat template. */
export interface TextCodec extends Pick<Tokenizer, 'encode' | 'decode' | 'stream' | 'bytes'> {
  /** The prompt text of a conversation; `addGenerationPrompt` opens the assistant's turn. */
  render(messages: readonly Message[], options: { addGenerationPrompt: boolean }): string
  /** Tokens that end an assistant's turn. */
  readonly stopTokenIds: readonly number[]
}

/** A model's own tokenizer and template; the model's configuration may know more ends of text than its tokenizer. */
export function textCodec(tokenizer: Tokenizer, model: ModelInfo): TextCodec {
  return {
    encode: remembered(tokenizer.encode),
    decode: tokenizer.decode,
    stream: tokenizer.stream,
    bytes: tokenizer.bytes,
    render: rendered(tokenizer),
    stopTokenIds: [...new Set([...tokenizer.eosTokenIds, ...model.eosTokenIds])],
  }
}

/** Prompts whose tokens are remembered: a group's rollouts ask for the same one at the same time, and its training asks once more. */
const REMEMBERED = 256

/** Conversations that are longer come once, and would fill the memory. */
const LONGEST = 1 << 16

/** Chat templates that tell the time write other texts for the same messages. */
const TELLS_TIME = /strftime_now/

/** `renderChat`, with the texts of the latest conversations kept. */
function rendered(tokenizer: Tokenizer): TextCodec['render'] {
  if (TELLS_TIME.test(tokenizer.chatTemplate ?? '')) return (messages, options) => renderChat(tokenizer, messages, options)
  const known = new Map<string, string>() // oldest first
  return (messages, options) => {
    const key = JSON.stringify([messages, options.addGenerationPrompt])
    if (key.length > LONGEST) return renderChat(tokenizer, messages, options)
    let text = known.get(key)
    if (text === undefined) {
      known.set(key, (text = renderChat(tokenizer, messages, options)))
      if (known.size > REMEMBERED) known.delete(known.keys().next().value!)
    }
    return text
  }
}

/** `encode`, with the tokens of its latest texts kept. */
function remembered(encode: Tokenizer['encode']): Tokenizer['encode'] {
  const known = new Map<string, readonly number[]>() // oldest first
  return (text, options) => {
    if (options?.addSpecial) return encode(text, options)
    let tokens = known.get(text)
    if (!tokens) {
      known.set(text, (tokens = Object.freeze(encode(text))))
      if (known.size > REMEMBERED) known.delete(known.keys().next().value!)
    }
    return tokens // one list for all: completions are kept with their prompt, a group's with the same
  }
}

/** What a request carries through its routes. */
export type RouteEnv = { Variables: { requestId: string } }

export interface Services {
  readonly engine: Engine
  readonly model: ModelInfo
  /** The base model's names, as clients may write them (prefixes stripped); the first is the one shown. */
  readonly modelNames: readonly string[]
  readonly codec: TextCodec
  readonly completions: CompletionStore
  readonly constraints: Constraints
  readonly jobs: Jobs
  readonly fineTuning: FineTuning
  readonly saved: SavedPolicies
  readonly earlier: EarlierRuns
  /** Hears of faults (an answer of 500, a job that failed), with the stack. */
  readonly log?: (line: string) => void
}

/** A job whose weights answer chat requests, of either kind. */
export interface ServedJob {
  readonly id: string
  readonly contextLength: number
  /** Resolves when what was posted so far is trained. */
  trained(): Promise<void>
}

/**
 * What answers to this name: a job's policy as it stands, else one that was saved. Null for the base and for names that nobody has.
 * @throws HttpError 404 for a job that has no such checkpoint, or was trained on another base
 */
export function servedJob({ jobs, fineTuning, saved }: Services, name: string): ServedJob | null {
  if (parseCheckpointName(name)) return saved.find(name)
  const job = jobs.find(name) ?? fineTuning.find(name)
  if (job) return job.serves ? job : null
  return saved.find(name)
}

/** All that `GET /models` lists: what runs or was trained here, then what lies on disk. */
export function listedNames(services: Services): string[] {
  return [...new Set([...servedNames(services), ...services.saved.names()])]
}

/** The base and the jobs of this process, for a message. */
export function servedNames({ modelNames, jobs, fineTuning }: Services): string[] {
  const tuned = fineTuning.list().filter((job) => job.serves)
  return [modelNames[0]!, ...jobs.serving().map((job) => job.id), ...tuned.map((job) => job.id)]
}
