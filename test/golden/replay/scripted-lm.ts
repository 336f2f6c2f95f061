// The language model of the vectors: answers from a script, and keeps what it was asked.
import { ContextWindowExceededError, LMError } from '../../../src/errors'
import { BaseLM, type LMOptions, type LMResponse } from '../../../src/program'
import type { Message } from '../../../src/protocol'

/** A text, a text for each of the completions asked for, or an error. */
export type ScriptedAnswer = string | readonly string[] | { readonly raise: string; readonly message: string }

export type LMScript =
  | { readonly mode: 'sequence'; readonly responses: readonly ScriptedAnswer[]; readonly cycle?: boolean }
  | { readonly mode: 'rules'; readonly rules: readonly Rule[] }

interface Rule {
  readonly contains: string
  readonly system_contains?: string
  readonly responses: readonly ScriptedAnswer[]
}

export interface ScriptedCall {
  readonly messages: readonly Message[]
  /** Wire names, nulls dropped. */
  readonly kwargs: Record<string, unknown>
  readonly response: string | readonly string[] | null
}

const WIRE: Record<string, string> = {
  maxTokens: 'max_tokens',
  topP: 'top_p',
  topK: 'top_k',
  repetitionPenalty: 'repetition_penalty',
  rolloutId: 'rollout_id',
  responseFormat: 'response_format',
}

export class ScriptedLM extends BaseLM {
  readonly calls: ScriptedCall[] = []
  private readonly given = new Map<unknown, number>()

  constructor(
    readonly script: LMScript,
    options: LMOptions = {},
  ) {
    super('scripted', options)
  }

  /** The copy answers from the same place in the script and writes into the same list. */
  override copy(changes: LMOptions = {}): ScriptedLM {
    const copy = Object.create(this) as ScriptedLM
    Object.assign(copy, { options: { ...this.options, ...changes } })
    return copy
  }

  override dumpState(): Record<string, unknown> {
    return { model: this.model }
  }

  /** The calls as the vectors keep them in brief. */
  brief(field: 'n_messages' | 'response'): Record<string, unknown>[] {
    return this.calls.map(({ messages, kwargs, response }) => {
      const rest = field === 'n_messages' ? { n_messages: messages.length } : { response }
      return { last_message: messages.at(-1)!.content, kwargs, ...rest }
    })
  }

  protected override async forward(messages: readonly Message[], options: LMOptions): Promise<LMResponse> {
    const kwargs = Object.fromEntries(Object.entries(options).map(([key, value]) => [WIRE[key] ?? key, value]))
    const first = this.scripted(messages)
    const response = typeof first === 'string' || isTexts(first) ? first : null
    this.calls.push({ messages, kwargs, response })
    const texts = isTexts(first) ? first : [first, ...Array.from({ length: (options.n ?? 1) - 1 }, () => this.scripted(messages))]
    const outputs = texts.map((text, index) => {
      if (typeof text !== 'string') throw scriptedError(text as Raised)
      return { text, completionId: `scripted-${this.calls.length}#${index}`, finishReason: 'stop' }
    })
    const usage = { promptTokens: 0, completionTokens: 0, totalTokens: 0 }
    return { id: `scripted-${this.calls.length}`, model: this.model, outputs, usage }
  }

  private scripted(messages: readonly Message[]): ScriptedAnswer {
    const { script } = this
    if (script.mode === 'sequence') return this.next(script, script.responses, script.cycle ?? false)
    const last = messages.at(-1)!.content
    const system = messages[0]!.role === 'system' ? messages[0]!.content : ''
    const rule = script.rules.find((one) => last.includes(one.contains) && system.includes(one.system_contains ?? ''))
    if (!rule) throw new Error(`no rule of the script fits the message ${JSON.stringify(last.slice(0, 300))}`)
    return this.next(rule, rule.responses, true)
  }

  private next(owner: unknown, responses: readonly ScriptedAnswer[], cycle: boolean): ScriptedAnswer {
    const index = this.given.get(owner) ?? 0
    this.given.set(owner, index + 1)
    const answer = responses[cycle ? index % responses.length : index]
    if (answer === undefined) throw new Error(`the script has ${responses.length} answers, and this is call ${index + 1}`)
    return answer
  }
}

type Raised = { readonly raise: string; readonly message: string }

function isTexts(answer: ScriptedAnswer): answer is readonly string[] {
  return Array.isArray(answer)
}

function scriptedError({ raise, message }: Raised): Error {
  if (raise === 'LMServerError') return new LMError(message)
  if (raise === 'ContextWindowExceededError') return new ContextWindowExceededError(message)
  return Object.assign(new Error(message), { name: raise })
}
