import { describe, expect, it } from 'vitest'
import { AdapterParseError, LMError } from '../errors'
import { ChainOfThought } from './chain-of-thought'
import { ChatAdapter } from './chat-adapter'
import { configure, context, settings, type TraceEntry, withTrace } from './context'
import { DummyLM } from './dummy-lm'
import { Module } from './module'
import { Predict } from './predict'
import { XMLAdapter } from './xml-adapter'

const run = <T>(lm: DummyLM, body: () => Promise<T>) => context({ lm }, body)

describe('Predict', () => {
  it('answers typed fields, and keeps every completion', async () => {
    const lm = new DummyLM([{ n: 3 }, { n: 4 }])
    const prediction = await run(lm, () => new Predict('q -> n: int', { n: 2, temperature: 0.5 }).call({ q: 'x' }))
    expect(prediction.n).toBe(3)
    expect(prediction.completions!.fields.n).toEqual([3, 4])
  })

  it('samples at 0.7 when it wants several completions at a temperature near zero', async () => {
    const sent = async (config: object, lmOptions: object) => {
      const lm = new DummyLM(() => ({ a: 'x' }), lmOptions)
      await run(lm, () => new Predict('q -> a', config).call({ q: 'x' }))
      return lm.history[0]!.options
    }
    expect(await sent({ n: 2 }, {})).toEqual({ n: 2, temperature: 0.7 })
    expect(await sent({ n: 2 }, { temperature: 0.15, maxTokens: 5 })).toEqual({ n: 2, temperature: 0.7, maxTokens: 5 })
    expect(await sent({ n: 2, temperature: 0.5 }, {})).toEqual({ n: 2, temperature: 0.5 })
    expect(await sent({}, { temperature: 0 })).toEqual({ temperature: 0 })
  })

  it("lets a call's options go over the predictor's, those over the context's, those over the model's", async () => {
    const lm = new DummyLM(() => ({ a: 'x' }), { temperature: 0.1, topP: 0.2, topK: 3, seed: 4 })
    const predictor = new Predict('q -> a', { temperature: 0.5, topP: 0.6 })
    await context({ lm, lmOptions: () => ({ topP: 0, topK: 8, temperature: 0 }) }, () =>
      predictor.call({ q: 'x' }, { config: { temperature: 0.9 } }),
    )
    expect(lm.history[0]!.options).toEqual({ temperature: 0.9, topP: 0.6, topK: 8, seed: 4 })
    expect(predictor.config).toEqual({ temperature: 0.5, topP: 0.6 })
  })

  it('takes demos, signature and model for one call', async () => {
    const lm = new DummyLM([{ a: 'y' }])
    const predictor = new Predict('q -> a')
    const signature = predictor.signature.withInstructions('Only now.') as never
    await predictor.call({ q: 'x' }, { demos: [{ q: '1', a: '2' }], lm, signature })
    expect(lm.history[0]!.messages[0]!.content).toContain('Only now.')
    expect(lm.history[0]!.messages).toHaveLength(4)
    expect(predictor.demos).toEqual([])
  })

  it('says aloud, but not on the console, what is missing and what nobody asked for', async () => {
    const warnings: string[] = []
    const lm = new DummyLM([{ a: 'y' }])
    const predictor = new Predict('q, r -> a' as string)
    await context({ lm, onWarning: (text) => warnings.push(text) }, () => predictor.call({ q: 'x', zzz: 1 }))
    expect(warnings).toEqual([
      'Input contains fields not in the signature, which are ignored: zzz. Expected: q, r.',
      'Not all input fields were provided. Present: q. Missing: r.',
    ])
  })

  it('explains a missing or mistaken model', async () => {
    const predictor = new Predict('q -> a')
    await expect(context({ lm: null }, () => predictor.call({ q: 'x' }))).rejects.toThrow(/No LM is loaded.*dspy.configure/)
    await expect(context({ lm: 'openai/x' as never }, () => predictor.call({ q: 'x' }))).rejects.toThrow(
      /not the string 'openai\/x'/,
    )
  })
})

describe('the trace', () => {
  class Two extends Module {
    draft = new ChainOfThought('question -> hint')
    final = new Predict('question, hint -> answer')
    async forward({ question }: { question: string }) {
      const { hint } = await this.draft.call({ question })
      return this.final.call({ question, hint })
    }
  }

  it('holds what every predictor saw and said, ids included', async () => {
    const lm = new DummyLM([{ reasoning: 'r', hint: 'h' }, { answer: 'a' }])
    const program = new Two()
    const { result, trace } = await run(lm, () => withTrace(() => program.call({ question: 'q' })))
    expect(result.answer).toBe('a')
    expect(trace.map((entry) => entry.predictor)).toEqual(program.predictors())
    expect(trace.map((entry) => entry.inputs)).toEqual([{ question: 'q' }, { question: 'q', hint: 'h' }])
    expect(trace[1]!.completions).toEqual([{ text: '[[ ## answer ## ]]\na', completionId: 'dummy-2#0', finishReason: 'stop' }])
    expect(trace[1]!.messages).toBe(lm.history[1]!.messages)
  })

  it('holds the failure of a completion that cannot be read, with its own inputs', async () => {
    const trace: TraceEntry[] = []
    const lm = new DummyLM([{ reasoning: 'r', hint: 'h' }, 'no fields here'])
    const adapter = new ChatAdapter({ fallback: null })
    await expect(context({ lm, trace, adapter }, () => new Two().call({ question: 'q' }))).rejects.toThrow(AdapterParseError)
    expect(trace[1]).toMatchObject({ inputs: { question: 'q', hint: 'h' }, prediction: null })
    expect(trace[1]!.failure!.raw).toBe('no fields here')
  })

  it('counts an empty completion as one that cannot be read', async () => {
    const settings = { lm: new DummyLM(['', '']), adapter: new ChatAdapter() }
    await expect(context(settings, () => new Predict('q -> a').call({ q: 'x' }))).rejects.toThrow(/empty or null response/)
    expect(settings.lm.history).toHaveLength(2)
  })

  it('is bounded, and can be left out for a call', async () => {
    const trace: TraceEntry[] = []
    const predictor = new Predict('q -> a')
    await context({ lm: new DummyLM(() => ({ a: 'x' })), trace, maxTraceSize: 2 }, async () => {
      for (const q of ['1', '2', '3']) await predictor.call({ q })
      await predictor.call({ q: '4' }, { trace: false })
    })
    expect(trace.map((entry) => entry.inputs.q)).toEqual(['2', '3'])
  })
})

describe('the context', () => {
  it('keeps concurrent calls apart', async () => {
    const [one, two] = [new DummyLM(() => ({ a: 'one' })), new DummyLM(() => ({ a: 'two' }))]
    const predictor = new Predict('q -> a')
    const answers = await Promise.all([one, two, one].map((lm) => run(lm, async () => (await predictor.call({ q: 'x' })).a)))
    expect(answers).toEqual(['one', 'two', 'one'])
  })

  it('goes over what is configured, inside only', async () => {
    const adapter = new XMLAdapter()
    configure({ adapter })
    expect(context({ adapter: null }, () => settings.adapter)).toBeNull()
    expect(settings.adapter).toBe(adapter)
    configure({ adapter: null })
  })

  it('aborts its calls', async () => {
    const stop = new AbortController()
    stop.abort(new Error('enough'))
    const lm = new DummyLM([{ a: 'x' }])
    await expect(context({ lm, signal: stop.signal }, () => new Predict('q -> a').call({ q: 'x' }))).rejects.toThrow('enough')
    expect(lm.history).toHaveLength(0)
  })
})

describe('a fallback adapter', () => {
  it('is asked when a completion cannot be read, and not for errors of the model', async () => {
    const adapter = new ChatAdapter({ fallback: new XMLAdapter() })
    const trace: TraceEntry[] = []
    const predictor = new Predict('q -> a')
    const { a } = await context({ lm: new DummyLM(['junk', '<a>x</a>']), adapter, trace }, () => predictor.call({ q: 'x' }))
    expect(a).toBe('x')
    expect(trace[0]!.adapter).toBeInstanceOf(XMLAdapter)
    const failing = new DummyLM([new LMError('503')])
    await expect(context({ lm: failing, adapter }, () => predictor.call({ q: 'x' }))).rejects.toThrow('503')
  })
})

describe('DummyLM', () => {
  it('says which call found no answer', async () => {
    await expect(run(new DummyLM([]), () => new Predict('q -> a').call({ q: 'x' }))).rejects.toThrow(
      'given 0, and this is call 1',
    )
    await expect(run(new DummyLM({ Rome: { a: 'x' } }), () => new Predict('q -> a').call({ q: 'Paris' }))).rejects.toThrow(
      LMError,
    )
  })

  it('answers in the format of its adapter', async () => {
    const adapter = new XMLAdapter()
    const lm = new DummyLM({ Paris: { a: 'x & y' } }, { adapter })
    const { a } = await context({ lm, adapter }, () => new Predict('q -> a').call({ q: 'Paris?' }))
    expect(a).toBe('x & y')
  })
})
