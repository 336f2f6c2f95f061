// A training file: JSON lines, each a conversation that ends with the assistant's words. Its faults are told by line.

import type { TrainSequence } from '../engine/engine'
import type { Message } from '../protocol'
import { HttpError } from './http-errors'
import type { TextCodec } from './services'
import { tokenizeCompletion } from './training-rows'

export interface Conversation {
  /** In the file, from 1. */
  readonly line: number
  readonly messages: readonly Message[]
}

/** Faults told at once: one often explains the others. */
const FAULTS_TOLD = 5

/** @throws HttpError 400 that names the lines that can't be used and why, or says that there are none */
export function parseTrainingFile(text: string, filename: string): Conversation[] {
  const conversations: Conversation[] = []
  const faults: string[] = []
  for (const [i, line] of text
    .replace(/^\uFEFF/, '')
    .split('\n')
    .entries()) {
    if (line.trim() === '') continue
    const read = readLine(line)
    if (typeof read === 'string') faults.push(`line ${i + 1}: ${read}`)
    else conversations.push({ line: i + 1, messages: read })
  }
  if (faults.length > 0) throw badFile(`${filename} can't be trained on: ${told(faults)}.`)
  if (conversations.length === 0) throw badFile(`${filename} holds no line; a training file has one JSON object a line.`)
  return conversations
}

function told(faults: readonly string[]): string {
  const rest = faults.length - FAULTS_TOLD
  return faults.slice(0, FAULTS_TOLD).join('; ') + (rest > 0 ? `; and ${rest} more lines` : '')
}

function badFile(message: string): HttpError {
  return new HttpError(400, message, { code: 'invalid_training_file', param: 'file' })
}

/** The messages of a line, or what is wrong with it. */
function readLine(line: string): Message[] | string {
  let value: unknown
  try {
    value = JSON.parse(line)
  } catch (error) {
    return `not JSON (${(error as Error).message})`
  }
  if (!isRecord(value)) return 'not a JSON object'
  if ('preferred_output' in value)
    return 'preference data (preferred_output): only conversations {"messages": [...]} are trained on'
  const { messages } = value
  if (!Array.isArray(messages)) return 'no list "messages"'
  for (const [i, message] of messages.entries()) {
    if (!isRecord(message) || typeof message['role'] !== 'string') return `messages[${i}] has no role`
    if (typeof message['content'] !== 'string') return `messages[${i}] has no text as its content`
  }
  const last = (messages as Message[]).at(-1)
  if (last?.role !== 'assistant')
    return `the last message is ${last ? `the ${last.role}'s` : 'missing'}; the assistant's is what is learnt`
  if (last.content === '') return 'the last message is empty: nothing to learn'
  if (messages.length === 1) return 'one message alone: there is no prompt'
  return messages.map(({ role, content }: Message) => ({ role, content }))
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/**
 * The tokens of a conversation. Its last message is what is learnt, up to the end of the turn; earlier answers are demonstrations.
 * @throws HttpError 400 with the line when the model's template can't write it
 */
export function trainSequence({ line, messages }: Conversation, codec: TextCodec): TrainSequence {
  const before = messages.slice(0, -1)
  try {
    const prompt = codec.render(before, { addGenerationPrompt: true })
    return { prompt: codec.encode(prompt), completion: tokenizeCompletion(before, messages.at(-1)!, prompt, codec) }
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause)
    throw new HttpError(400, `line ${line}: the model's chat template can't write this conversation: ${why}`, { cause })
  }
}
