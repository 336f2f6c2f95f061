// The model that ships, from text to text, against transformers on the same files (make_arbor_tiny.py). Knows none of its sizes.

import { createHash } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { bundledModel, DEFAULT_MODEL } from '../../../src/engine/bundled-models'
import type { ModelInfo } from '../../../src/engine/engine'
import { LocalEngine } from '../../../src/engine/local-engine'
import { ChainOfThought, ChatAdapter } from '../../../src/program'
import type { Message } from '../../../src/protocol'
import { renderChat } from '../../../src/server/chat-template'
import { loadTokenizer, type Tokenizer } from '../../../src/server/tokenizer'
import { describeNative } from './each-backend'

interface Golden {
  readonly weights: string // sha256 of model.safetensors
  readonly parameters: number
  readonly encodings: readonly { readonly text: string; readonly ids: number[] }[]
  readonly cases: readonly Case[]
}
interface Case {
  readonly question: string
  readonly messages: readonly Message[]
  readonly text: string
  readonly ids: number[]
  readonly promptLogprobs: readonly number[]
  readonly greedy: number[]
  readonly greedyText: string
  readonly greedyLogprobs: readonly number[]
  /** By how much each greedy token is ahead of the next best: near zero, rounding may decide. */
  readonly leads: readonly number[]
  /** The twenty most likely first tokens of the answer. */
  readonly top: readonly { readonly token: number; readonly logprob: number }[]
}

const model = bundledModel(DEFAULT_MODEL)!
const path = join(__dirname, 'arbor-tiny.json')
const golden: Golden | null = existsSync(path) ? JSON.parse(readFileSync(path, 'utf8')) : null
const MAKE = 'python test/golden/engine/make_arbor_tiny.py makes them'

describe(model.name, () => {
  beforeEach(({ skip }) => skip(golden === null, `its golden numbers are not there: ${MAKE}`))
  let tokenizer: Tokenizer
  beforeAll(async () => {
    tokenizer = await loadTokenizer(model)
  })

  it('has the weights that the golden numbers were made of', () => {
    const weights = createHash('sha256')
      .update(readFileSync(join(model.path, 'model.safetensors')))
      .digest('hex')
    expect(weights, `the numbers belong to other weights: ${MAKE} anew`).toBe(golden!.weights)
  })

  it('gives any text the tokens that transformers gives it, and the text back', () => {
    for (const { text, ids } of golden!.encodings) {
      expect(tokenizer.encode(text), JSON.stringify(text)).toEqual(ids)
      expect(tokenizer.decode(ids, { skipSpecial: false })).toBe(text)
    }
  })

  it('turns what ChatAdapter writes into the prompt of its own chat template', () => {
    const { signature } = new ChainOfThought('question -> answer').predict
    for (const { question, messages, text, ids } of golden!.cases) {
      expect(new ChatAdapter().format(signature, [], { question })).toEqual(messages)
      expect(renderChat(tokenizer, messages)).toBe(text)
      expect(tokenizer.encode(text)).toEqual(ids)
    }
  })

  describeNative((name, open, precision) =>
    describe(name, { timeout: 120_000 }, () => {
      // A logprob may be so far from transformers' f32, and a token is sure that leads by more. In bf16: twice what was measured.
      const rounded = { logprob: 0.15, lead: 0.3 }
      const limits = { f32: { logprob: 1e-4, lead: 1e-3 }, bf16: rounded, 'bf16 throughout': rounded }[precision]
      let engine: LocalEngine
      let info: ModelInfo
      beforeAll(async () => {
        if (golden === null) return
        engine = new LocalEngine({ backend: await open(), kvCacheTokens: 1024 })
        info = await engine.load(model)
      }, 60_000)
      afterAll(() => engine?.close())

      it('gives every token the logprob that transformers gives it', async () => {
        expect(info.parameters).toBe(golden!.parameters)
        const sequences = golden!.cases.map(({ ids, greedy }) => ({
          prompt: ids.slice(0, 1),
          completion: [...ids.slice(1), ...greedy],
        }))
        const stats = await engine.logprobs(null, sequences, { temperature: 1 })
        for (const [i, { promptLogprobs, greedyLogprobs }] of golden!.cases.entries())
          expect(farthest(stats[i]!.logprobs, [...promptLogprobs, ...greedyLogprobs])).toBeLessThan(limits.logprob)
      })

      it('answers greedily, word for word, and ranks the first tokens alike', async () => {
        const sampling = { temperature: 0, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1 }
        for (const { ids, greedy, greedyText, leads, top } of golden!.cases) {
          const request = { policy: null, prompt: ids, seeds: [0], maxNewTokens: greedy.length, sampling, topLogprobs: 20 }
          const [answer] = await engine.generate({ ...request, stopTokenIds: tokenizer.eosTokenIds })
          const sure = leads.findIndex((lead) => lead < limits.lead)
          if (sure === -1) expect(tokenizer.decode(answer!.tokens)).toBe(greedyText)
          expect(answer!.tokens.slice(0, sure === -1 ? undefined : sure)).toEqual(greedy.slice(0, sure === -1 ? undefined : sure))
          const logprobOf = new Map(answer!.topLogprobs![0]!.map(({ token, logprob }) => [token, logprob]))
          const shared = top.slice(0, 10) // beyond, ties may be cut differently
          expect(
            farthest(
              shared.map(({ token }) => logprobOf.get(token) ?? Number.NaN),
              shared.map(({ logprob }) => logprob),
            ),
          ).toBeLessThan(limits.logprob)
        }
      })
    }),
  )
})

/** The largest difference; not a number when one of them is none, which is below no limit. */
function farthest(actual: ArrayLike<number>, expected: readonly number[]): number {
  return Math.max(...expected.map((value, i) => Math.abs(actual[i]! - value)))
}
