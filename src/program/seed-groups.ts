// Calls of one moment that differ in their seed alone, sent as one request with a list of seeds. Only our own server takes such a list.

import { randomUUID } from 'node:crypto'
import type { ChatClient, ChatCompletion } from './chat-client'

type Body = Readonly<Record<string, unknown>>

interface Waiting {
  readonly seed: number
  resolve(completion: ChatCompletion): void
  reject(error: unknown): void
}

interface Group {
  readonly body: Body // without a seed
  readonly signal: AbortSignal | undefined
  readonly waiting: Waiting[]
}

/** The most choices a request may ask for. */
const MOST_SEEDS = 128

/**
 * A client that gathers what is asked before the event loop turns: the rollouts of one example share their prompt, so they cost one request
 * and not one each. A choice of such a request is the one that its seed gives alone. What has no seed, or asks for several choices, is sent as it is.
 */
export function groupSeeds(client: ChatClient): ChatClient {
  const groups = new Map<string, Group[]>()
  const sendAll = async () => {
    const ready = [...groups.values()].flat().flatMap(parts)
    groups.clear()
    const together = ready.length > 1 ? `${randomUUID()}/${ready.length}` : undefined
    for (const group of ready) {
      void send(client, group, together)
      await new Promise<void>((sent) => process.nextTick(sent)) // on its way, so that it is read while we write the next
    }
  }
  return (body, call = {}) => {
    const { signal, onText } = call
    const { seed, ...rest } = body
    if (typeof seed !== 'number' || (body['n'] ?? 1) !== 1 || onText) return client(body, call)
    if (groups.size === 0) setImmediate(() => void sendAll())
    const key = JSON.stringify(rest)
    const alike = groups.get(key) ?? []
    groups.set(key, alike)
    const begun = alike.find((other) => other.signal === signal) // what ends together is sent together
    const group = begun ?? { body: rest, signal, waiting: [] }
    if (!begun) alike.push(group)
    return new Promise((resolve, reject) => group.waiting.push({ seed, resolve, reject }))
  }
}

/** Requests of as many seeds as one may have. */
function parts({ waiting, ...group }: Group): Group[] {
  const count = Math.ceil(waiting.length / MOST_SEEDS)
  return Array.from({ length: count }, (_, i) => ({ ...group, waiting: waiting.slice(i * MOST_SEEDS, (i + 1) * MOST_SEEDS) }))
}

async function send(client: ChatClient, { body, signal, waiting }: Group, together?: string): Promise<void> {
  const seeds = waiting.map(({ seed }) => seed)
  const call = { signal, ...(together !== undefined && { together }) }
  try {
    if (seeds.length === 1) return waiting[0]!.resolve(await client({ ...body, seed: seeds[0] }, call))
    const completion = await client({ ...body, n: seeds.length, seeds }, call)
    if (completion.choices.length !== seeds.length)
      throw new Error(
        `${seeds.length} seeds were sent and ${completion.choices.length} choices came: this server takes no list of seeds`,
      )
    for (const [i, { resolve }] of waiting.entries()) resolve(alone(completion, i))
  } catch (error) {
    for (const { reject } of waiting) reject(error)
  }
}

/** The answer as it would have come with a request of its own. */
function alone(completion: ChatCompletion, index: number): ChatCompletion {
  const choice = completion.choices[index]!
  const prompt = completion.usage?.prompt_tokens ?? 0
  const tokens = choice.completion_tokens ?? 0
  const usage = { prompt_tokens: prompt, completion_tokens: tokens, total_tokens: prompt + tokens }
  return { ...completion, choices: [choice], usage }
}
