// What the soak's clients ask, and the only right answer to each: sampling depends on weights, prompt, settings and seed alone, so what one client
// was told while nothing else ran is what every other must be told in the crowd.

export interface Asked {
  readonly messages: readonly { readonly role: string; readonly content: string }[]
  readonly seeds: readonly number[]
  readonly temperature: number
  readonly max_tokens: number
  readonly top_p?: number
  readonly stop?: readonly string[]
  readonly response_format?: object
}

export interface Answer {
  readonly texts: readonly string[]
  readonly reasons: readonly string[]
  readonly tokens: number
}

export interface Known {
  readonly asked: Asked
  readonly answer: Answer
  /** The question as the beginning of a text, to /v1/completions. */
  readonly begun: Begun
  readonly continued: Answer
}

export interface Begun {
  readonly prompt: string
  readonly seed: number
  readonly temperature: number
  readonly max_tokens: number
}

export function begunOf({ messages, seeds, temperature }: Asked): Begun {
  return { prompt: messages.at(-1)!.content, seed: seeds[0]!, temperature, max_tokens: 24 }
}

const SYSTEM = 'Your input fields are:\n1. `question` (str):\nYour output fields are:\n1. `answer` (str):'

const properties = { answer: { type: 'string', maxLength: 24 }, sure: { type: 'boolean' } }
const schema = { type: 'object', properties, required: ['answer', 'sure'], additionalProperties: false }
const FORMAT = { type: 'json_schema', json_schema: { name: 'answer', schema, strict: true } }

/** Requests of many kinds: greedy, sampled, truncated, with stop strings, several choices, cut short, under a grammar. */
export function askedOf(question: string, i: number): Asked {
  const messages = [...(i % 3 === 0 ? [] : [{ role: 'system', content: SYSTEM }]), { role: 'user', content: question }]
  const seeds = Array.from({ length: i % 5 === 0 ? 4 : 1 }, (_, n) => 1000 * i + n)
  const common = { messages, seeds, temperature: i % 4 === 0 ? 0 : 1, max_tokens: i % 7 === 0 ? 8 : 64 }
  return {
    ...common,
    ...(i % 6 === 1 && { top_p: 0.8 }),
    ...(i % 8 === 3 && { stop: ['.', '\n\n'] }),
    ...(i % 9 === 4 && { response_format: FORMAT }),
  }
}

export interface ChatBody {
  readonly id: string
  readonly choices: readonly {
    readonly index: number
    readonly message: { readonly content: string }
    readonly finish_reason: string
  }[]
  readonly usage: { readonly completion_tokens: number }
}

export interface TextBody {
  readonly choices: readonly { readonly text: string; readonly finish_reason: string }[]
  readonly usage: { readonly completion_tokens: number }
}

export function continuationOf({ choices, usage }: TextBody): Answer {
  const reasons = choices.map(({ finish_reason }) => finish_reason)
  return { texts: choices.map(({ text }) => text), reasons, tokens: usage.completion_tokens }
}

export function answerOf({ choices, usage }: ChatBody): Answer {
  const ordered = [...choices].sort((a, b) => a.index - b.index)
  return {
    texts: ordered.map(({ message }) => message.content),
    reasons: ordered.map(({ finish_reason }) => finish_reason),
    tokens: usage.completion_tokens,
  }
}

/** The answer that a stream's chunks add up to. */
export class StreamedAnswer {
  readonly texts: string[] = []
  private readonly reasons: string[] = []
  private tokens = -1

  take(data: string): void {
    const chunk = JSON.parse(data) as {
      choices: { index: number; delta: { content?: string }; finish_reason: string | null }[]
      usage?: { completion_tokens: number } | null
    }
    for (const { index, delta, finish_reason } of chunk.choices) {
      this.texts[index] = (this.texts[index] ?? '') + (delta.content ?? '')
      if (finish_reason !== null) this.reasons[index] = finish_reason
    }
    if (chunk.usage) this.tokens = chunk.usage.completion_tokens
  }

  get answer(): Answer {
    return { texts: this.texts, reasons: this.reasons, tokens: this.tokens }
  }
}
