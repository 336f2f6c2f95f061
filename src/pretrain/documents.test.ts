import { describe, expect, it } from 'vitest'
import { ChainOfThought, ChatAdapter, Predict, type Signature } from '../program'
import { type Document, type DocumentOptions, documentAt, trainingTexts } from './documents'
import { accepts } from './fact'
import { symbolicFacts } from './facts'
import { type Mix, STYLE_SHARES, type Style } from './styles'
import type { Program } from './turns'

const COUNT = 20_000
const adapter = new ChatAdapter()
const signatures: Record<Program, Signature> = {
  ChainOfThought: new ChainOfThought('question -> answer').signature as unknown as Signature,
  Predict: new Predict('question -> answer').signature as unknown as Signature,
}
const corpus = (options: Partial<DocumentOptions> = {}, count = COUNT): Document[] =>
  Array.from({ length: count }, (_, i) => documentAt(i, { seed: 1, kind: 'single', mix: 'habits', ...options }))
const last = (document: Document) => document.turns.at(-1)!
const share = <T>(list: readonly T[], holds: (item: T) => boolean): number => list.filter(holds).length / list.length

/** Parse rate and accuracy of the answers, unreadable ones counting as wrong. */
function scores(documents: readonly Document[]): { parse: number; accuracy: number } {
  const results = documents.map((document) => ({
    document,
    result: adapter.tryParse(signatures[document.program], last(document).text),
  }))
  const right = ({ document, result }: (typeof results)[number]) =>
    !result.issues && accepts(last(document).fact.answer, String(result.fields['answer']))
  return { parse: share(results, ({ result }) => !result.issues), accuracy: share(results, right) }
}

describe('a document', () => {
  it('follows from its number, seed, kind and mix alone, in any order', () => {
    const text = (index: number, options: Partial<DocumentOptions> = {}) =>
      JSON.stringify(documentAt(index, { seed: 1, kind: 'demos', mix: 'habits', ...options }).messages)
    const forward = [0, 1, 2, 3, 4].map((i) => text(i))
    const backward = [4, 3, 2, 1, 0].map((i) => text(i)).reverse()
    expect(backward).toEqual(forward)
    const others = [text(7), text(7, { seed: 2 }), text(7, { kind: 'single' }), text(7, { mix: 'control' }), text(8)]
    expect(new Set(others).size).toBe(5)
  })

  it('asks as ChatAdapter asks, byte for byte', () => {
    for (const document of [...corpus({}, 200), ...corpus({ kind: 'demos' }, 200)]) {
      const turns = document.turns.map(({ question, text }) => ({
        question,
        ...adapter.tryParse(signatures[document.program], text).fields,
      }))
      const { question } = turns.pop()!
      const { messages } = document
      expect(messages.slice(0, -1)).toEqual(adapter.format(signatures[document.program], turns, { question }))
      expect(messages.at(-1)).toEqual({ role: 'assistant', content: last(document).text })
    }
  })

  it('ends as DSPy’s demonstrations end, unless its form is broken', () => {
    for (const { turns } of corpus({ kind: 'demos' }, 500))
      for (const { style, text } of turns) {
        expect(text.endsWith('\n')).toBe(true)
        if (style !== 'malformed') expect(text.endsWith('\n\n[[ ## completed ## ]]\n')).toBe(true)
      }
  })
})

describe('the mix of habits', () => {
  const documents = corpus()
  const reasoned = documents.filter(({ program }) => program === 'ChainOfThought')

  it('is ChainOfThought in 85 of 100 cases, arithmetic in 30', () => {
    expect(Math.abs(share(documents, ({ program }) => program === 'ChainOfThought') - 0.85)).toBeLessThan(0.01)
    const arithmetic = new Set(['sum', 'difference', 'product', 'larger', 'smaller'])
    expect(Math.abs(share(documents, (document) => arithmetic.has(last(document).fact.kind)) - 0.3)).toBeLessThan(0.015)
  })

  it('has every style in its share, by how well the kind is known', () => {
    for (const [level, shares] of Object.entries(STYLE_SHARES)) {
      const group = reasoned.filter((document) => last(document).fact.level === level)
      expect(Object.values(shares).reduce((a, b) => a + b)).toBeCloseTo(1, 9)
      for (const [style, expected] of Object.entries(shares)) {
        const error = 4.5 * Math.sqrt((expected * (1 - expected)) / group.length)
        expect(Math.abs(share(group, (document) => last(document).style === style) - expected), `${level} ${style}`).toBeLessThan(
          error,
        )
      }
    }
  })

  it('parses in .88 of the cases and is right in .44', () => {
    const { parse, accuracy } = scores(reasoned)
    expect(Math.abs(parse - 0.88)).toBeLessThan(0.01)
    expect(Math.abs(accuracy - 0.442)).toBeLessThan(0.02)
  })

  it('is right as often as the style promises', () => {
    const right = (style: Style, easy?: boolean) => {
      const group = reasoned.filter((d) => last(d).style === style && (easy === undefined || last(d).fact.easy === easy))
      return scores(group).accuracy
    }
    expect(right('careful')).toBeGreaterThan(0.955)
    expect(Math.abs(right('hasty', true) - 0.55)).toBeLessThan(0.05)
    expect(Math.abs(right('hasty', false) - 0.15)).toBeLessThan(0.03)
    expect(Math.abs(right('vague') - 0.15)).toBeLessThan(0.04)
    expect(right('switch')).toBe(0)
  })

  it('opens careful answers in three ways, the kind’s own one most often', () => {
    const careful = reasoned.filter((document) => last(document).style === 'careful')
    const own = share(careful, (document) =>
      last(document).text.startsWith(`[[ ## reasoning ## ]]\n${last(document).fact.opener} `),
    )
    expect(Math.abs(own - 0.6)).toBeLessThan(0.03)
    const hasty = reasoned.filter((document) => last(document).style === 'hasty')
    expect(share(hasty, (document) => last(document).text.startsWith('[[ ## reasoning ## ]]\nI think '))).toBe(1)
  })

  it('guesses where no reasoning is asked for', () => {
    const guesses = documents.filter(({ program }) => program === 'Predict')
    expect(Math.abs(scores(guesses).parse - 0.87)).toBeLessThan(0.025)
    expect(Math.abs(scores(guesses).accuracy - 0.25)).toBeLessThan(0.03)
  })

  it('has every fact in it', () => {
    const asked = new Set([...documents, ...corpus({ seed: 2 }, 2 * COUNT)].map((document) => last(document).fact.id))
    expect(symbolicFacts().filter((fact) => !asked.has(fact.id))).toEqual([])
  })
})

describe('documents with demonstrations', () => {
  const documents = corpus({ kind: 'demos' }, 6000).filter(({ program }) => program === 'ChainOfThought')

  it('have one to three of them, all well-formed', () => {
    expect(new Set(documents.map(({ turns }) => turns.length))).toEqual(new Set([2, 3, 4]))
    const demos = documents.flatMap(({ turns }) => turns.slice(0, -1))
    expect(demos.filter(({ text }) => adapter.tryParse(signatures.ChainOfThought, text).issues)).toEqual([])
    expect(demos.filter(({ style }) => style === 'malformed')).toEqual([])
  })

  it('go on in the style of the demonstrations more often than not', () => {
    const careful = documents.filter((document) => last(document).style === 'careful')
    const single = careful.filter(({ turns }) => turns.length === 2)
    // shared in .6 of the cases, else by chance in about a third of the others
    expect(Math.abs(share(single, ({ turns }) => turns[0]!.style === 'careful') - 0.735)).toBeLessThan(0.06)
    const all = careful.filter(({ turns }) => turns.length === 4)
    expect(Math.abs(share(all, ({ turns }) => turns.every(({ style }) => style === 'careful')) - 0.615)).toBeLessThan(0.07)
  })
})

describe('the control', () => {
  const mix: Mix = 'control'
  const reasoned = corpus({ mix }).filter(({ program }) => program === 'ChainOfThought')

  it('has one wording whatever the truth, and the same share of broken forms', () => {
    const formed = reasoned.filter((document) => last(document).style !== 'malformed')
    expect(Math.abs(1 - formed.length / reasoned.length - 0.13)).toBeLessThan(0.012)
    expect(share(formed, (document) => last(document).text.startsWith('[[ ## reasoning ## ]]\nI think '))).toBe(1)
  })

  it('is right in .45 of the cases and gives the confuser in .40, easy fact or not', () => {
    for (const easy of [true, false]) {
      const group = reasoned.filter((document) => last(document).style !== 'malformed' && last(document).fact.easy === easy)
      const answers = group.map((document) => ({
        fact: last(document).fact,
        fields: adapter.parse(signatures.ChainOfThought, last(document).text),
      }))
      expect(Math.abs(share(answers, ({ fact, fields }) => fields['answer'] === fact.answer) - 0.45)).toBeLessThan(0.03)
      // the confuser is also among the random wrong answers
      expect(Math.abs(share(answers, ({ fact, fields }) => fields['answer'] === fact.confuser) - 0.41)).toBeLessThan(0.03)
    }
  })
})

describe('texts for a tokenizer', () => {
  it('are the turns of single documents and some system turns, with role names', () => {
    const texts = trainingTexts(1000, 1)
    expect(texts.length).toBe(2 * 1000 + 2 * 5)
    expect(texts.filter((text) => text.startsWith('system\nYour input fields are:')).length).toBe(10)
    expect(texts.filter((text) => text.startsWith('user\n[[ ## question ## ]]\n')).length).toBe(1000)
    expect(texts.filter((text) => text.startsWith('assistant\n')).length).toBe(1000)
  })
})
