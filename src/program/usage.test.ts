import { describe, expect, it } from 'vitest'
import type { Message } from '../protocol'
import { inspectHistory, type LMOptions, type LMResponse } from './base-lm'
import type { Callback, CallEnd, CallStart } from './callbacks'
import { ChainOfThought } from './chain-of-thought'
import { context } from './context'
import { DummyLM } from './dummy-lm'
import { Module } from './module'
import { Predict } from './predict'
import { Tool } from './tool'
import { trackUsage } from './usage'

/** Each call takes three tokens and gives two; a prompt of 'kept' comes from the cache. */
class CountedLM extends DummyLM {
  override readonly model: string = 'counted'
  protected override async forward(messages: readonly Message[], options: LMOptions): Promise<LMResponse> {
    const cacheHit = messages.at(-1)!.content === 'kept'
    return {
      ...(await super.forward(messages, options)),
      usage: { promptTokens: 3, completionTokens: 2, totalTokens: 5 },
      cacheHit,
    }
  }
}

class TwoSteps extends Module {
  first = new ChainOfThought('question -> answer')
  second = new Predict('question -> answer')
  async forward({ question }: { question: string }) {
    await this.first.call({ question })
    return this.second.call({ question })
  }
}
const lm = () => new CountedLM(() => ({ reasoning: 'r', answer: 'a' }))

describe('usage', () => {
  it('is counted per model, for trackers inside one another too; the cache costs nothing', async () => {
    const model = lm()
    const outer = await trackUsage(async () => {
      const inner = await trackUsage(() => model.call({ prompt: 'x' }))
      await model.call({ prompt: 'kept' })
      await model.call({ prompt: 'y' })
      return inner.usage
    })
    expect(outer.result).toEqual({ counted: { promptTokens: 3, completionTokens: 2, totalTokens: 5 } })
    expect(outer.usage).toEqual({ counted: { promptTokens: 6, completionTokens: 4, totalTokens: 10 } })
  })

  it('stands in the prediction of the outermost program where the setting asks for it', async () => {
    const run = (trackUsage: boolean) => context({ lm: lm(), trackUsage }, () => new TwoSteps().call({ question: 'q' }))
    expect((await run(true)).lmUsage).toEqual({ counted: { promptTokens: 6, completionTokens: 4, totalTokens: 10 } })
    expect((await run(false)).lmUsage).toBeNull()
  })
})

describe('callbacks', () => {
  it('are told of modules, language models and tools, and which is part of which', async () => {
    const log: string[] = []
    const names = new Map<string, string>()
    const start = (kind: string) => (call: CallStart) => {
      names.set(call.callId, `${kind} ${(call.instance as object).constructor.name}`)
      log.push(`${names.get(call.parentId ?? '') ?? 'nobody'} > ${names.get(call.callId)}`)
    }
    const end = ({ callId, error }: CallEnd) => void log.push(`${names.get(callId)} ${error === undefined ? 'ends' : 'fails'}`)
    const watcher: Callback = {
      onModuleStart: start('module'),
      onModuleEnd: end,
      onLmStart: start('lm'),
      onLmEnd: end,
      onToolStart: start('tool'),
      onToolEnd: end,
    }
    const failing = new Tool({ name: 'failing', run: () => Promise.reject(new Error('no')) })
    await context({ lm: lm(), callbacks: [watcher] }, async () => {
      await new Predict('question -> answer').call({ question: 'q' })
      await failing.call().catch(() => {})
    })
    expect(log).toEqual([
      'nobody > module Predict',
      'module Predict > lm CountedLM',
      'lm CountedLM ends',
      'module Predict ends',
      'nobody > tool Tool',
      'tool Tool fails',
    ])
  })

  it('change nothing when they throw', async () => {
    const warnings: string[] = []
    const callbacks: Callback[] = [
      {
        onLmStart() {
          throw new Error('oops')
        },
      },
    ]
    const settings = { lm: lm(), callbacks, onWarning: (text: string) => void warnings.push(text) }
    expect((await context(settings, () => new Predict('question -> answer').call({ question: 'q' }))).answer).toBe('a')
    expect(warnings).toEqual(['The callback onLmStart threw: oops'])
  })
})

describe('inspectHistory', () => {
  it('shows the latest calls as text and as a page', async () => {
    const model = new CountedLM(() => 'the <answer>')
    await model.call({ prompt: 'first' })
    await model.call({
      messages: [
        { role: 'system', content: ' be brief ' },
        { role: 'user', content: 'second' },
      ],
      n: 2,
    })
    const text = String(model.inspectHistory())
    expect(text).toMatch(
      /^\n{4}\[\d{4}-.*Z\]\n\nSystem message:\n\nbe brief\n\n\nUser message:\n\nsecond\n\n\nResponse:\n\nthe <answer>\n\n \t \(and 1 other completions\)\n\n{4}$/,
    )
    expect(String(model.inspectHistory(2))).toContain('first')
    expect(String(inspectHistory(1))).toBe(text) // of all models
    const page = (inspectHistory(1) as unknown as Record<symbol, () => Record<string, string>>)[Symbol.for('Jupyter.display')]!()
    expect(page['text/plain']).toBe(text)
    expect(page['text/html']).toContain('the &#60;answer&#62;')
    expect(page['text/html']).toContain('3 + 2 tokens')
    expect(() => inspectHistory(0)).toThrow(/from 1 on/)
  })
})
