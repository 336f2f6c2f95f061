// The world in which SIMBA and GEPA search on both sides: a model that answers by a hash of what it is asked. searches.py has the same.

import { createHash } from 'node:crypto'
import { BaseLM, Example, fieldsOf, type LMOptions, type LMResponse, Module, Predict } from '../../src/program'
import type { Message } from '../../src/protocol'

export type Mode = 'task' | 'rough' | 'reflect' | 'prompt'

function digest(...parts: string[]): number {
  return Number.parseInt(createHash('md5').update(parts.join('\x1f')).digest('hex').slice(0, 8), 16)
}

function respond(mode: Mode, text: string, turn: number): string {
  const number = digest(text, String(turn))
  if (mode === 'reflect') return `Sure:\n\`\`\`\nInstruction ${number % 100000}\n\`\`\``
  if (mode === 'prompt') {
    const advice = (number % 3 ? ['a', 'b'] : ['b']).map((name) => `"${name}": "ADVICE ${name} ${number % 1000}"`)
    return `[[ ## discussion ## ]]\nd\n\n[[ ## module_advice ## ]]\n{${advice.join(', ')}}\n\n[[ ## completed ## ]]`
  }
  if (mode === 'rough' && number % 11 === 0) return 'garbage'
  if (text.includes('starting with the field `[[ ## hint ## ]]`'))
    return `[[ ## hint ## ]]\nh${number % 3}\n\n[[ ## completed ## ]]`
  return `[[ ## answer ## ]]\nr${number % 5}\n\n[[ ## completed ## ]]`
}

/** Copies share the count of how often a prompt was asked, and the list of prompts. */
export class HashLM extends BaseLM {
  constructor(
    readonly mode: Mode,
    options: LMOptions = {},
    readonly turns = new Map<string, number>(),
    readonly asked: string[] = [],
  ) {
    super('hash', options)
  }

  override copy(changes: LMOptions = {}): HashLM {
    return new HashLM(this.mode, { ...this.options, ...changes }, this.turns, this.asked)
  }

  override dumpState(): Record<string, unknown> {
    return { model: this.model }
  }

  protected override async forward(messages: readonly Message[]): Promise<LMResponse> {
    const text = messages.map(({ content }) => content).join('\n')
    const turn = this.turns.get(text) ?? 0
    this.turns.set(text, turn + 1)
    this.asked.push(text)
    const output = { text: respond(this.mode, text, turn), completionId: `hash-${this.asked.length}#0`, finishReason: 'stop' }
    const usage = { promptTokens: 0, completionTokens: 0, totalTokens: 0 }
    return { id: `hash-${this.asked.length}`, model: this.model, outputs: [output], usage }
  }
}

/** `source`: the text of Python's class, which SIMBA shows to its prompt model. */
export function twoSteps(source = ''): Module & { a: Predict; b: Predict } {
  class TwoSteps extends Module {
    a = new Predict('question -> hint') as unknown as Predict
    b = new Predict('question, hint -> answer') as unknown as Predict
    async forward({ question }: { question: string }) {
      const first = await this.a.call({ question })
      return this.b.call({ question, hint: first.get('hint') })
    }
    static override toString() {
      return source
    }
  }
  return new TwoSteps()
}

export function score(question: string, answer: string): number {
  return (digest(question, answer) % 3) / 2
}

export function examples(count: number, from = 0): Example[] {
  return Array.from({ length: count }, (_, i) => new Example({ question: `q${i + from}.` }).withInputs('question'))
}

export function stateOf(program: Module): unknown[] {
  return program.predictors().map(({ signature, demos }) => {
    return { instructions: signature.instructions, demos: demos.map((demo) => fieldsOf(demo)) }
  })
}
