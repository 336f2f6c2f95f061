// dspy's modules and ours, with the same program, inputs, demonstrations and seed: the same requests on the wire, the same predictions.

import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { z } from 'zod'
import {
  ChainOfThought,
  context,
  fieldsOf,
  History,
  LM,
  type LMOptions,
  type Loose,
  type Module,
  MultiChainComparison,
  Predict,
  type Prediction,
  ReAct,
  tool,
} from '../../src/program'
import type { Message } from '../../src/protocol'
import { noPeers, python, SLOW } from './python'
import { type Asked, type ScriptedServer, scriptedServer } from './scripted-server'

const TEXT = 'What is "it"?\n\n  ‘ß’ 日本 [[ ## a ## ]] {x}'
const QA = 'question -> answer'
const TYPED = 'question, passages: list[str], depth: int -> label: Literal["yes", "no"], score: float, why: dict[str, list[int]]'
const DEMOS = [{ question: 'q1 «»', answer: 'a1\nline' }, { question: 'q2' }, { question: 'q3', reasoning: 'r3', answer: 'a3' }]

interface Wish {
  readonly module: 'Predict' | 'ChainOfThought' | 'ReAct' | 'MultiChainComparison'
  readonly signature: string
  readonly inputs: Loose
  readonly demos?: readonly object[]
  /** Wire names. */
  readonly config?: Readonly<Record<string, number>>
}

const CALLS: readonly Wish[] = [
  { module: 'Predict', signature: QA, inputs: { question: TEXT } },
  { module: 'Predict', signature: QA, inputs: { question: TEXT }, demos: DEMOS, config: { n: 3, seed: 11 } },
  { module: 'Predict', signature: QA, inputs: { question: 'in JSON, please' } }, // can't be read: dspy asks again in JSON
  {
    module: 'Predict',
    signature: TYPED,
    inputs: { question: TEXT, passages: ['one', 'two\nlines'], depth: 3 },
    config: { temperature: 0.5 },
  },
  {
    module: 'Predict',
    signature: 'question, history: dspy.History -> answer',
    inputs: {
      question: TEXT,
      history: {
        messages: [
          { question: 'before', answer: 'then' },
          { question: 'and', answer: null },
        ],
      },
    },
    demos: [{ question: 'd', answer: 'e' }],
  },
  { module: 'ChainOfThought', signature: QA, inputs: { question: TEXT }, demos: DEMOS },
  { module: 'ChainOfThought', signature: TYPED, inputs: { question: TEXT, passages: [], depth: 0 } },
  { module: 'ReAct', signature: QA, inputs: { question: TEXT } },
  { module: 'ReAct', signature: TYPED, inputs: { question: TEXT, passages: ['one'], depth: 1 } },
  {
    module: 'MultiChainComparison',
    signature: QA,
    inputs: {
      question: TEXT,
      completions: [
        { reasoning: ' r\ns', answer: 'a' },
        { rationale: 'b', answer: 'c\nd' },
      ],
    },
  },
]

/** The agent's moves, one for each observation that is there already. */
const STEPS = [
  ['search', { query: 'ß "x"', k: 3 }],
  ['facts', { about: 'it', places: ['here', 'là'] }],
  ['count', { items: { a: 1, b: 2 } }],
  ['search', { query: 'again' }],
  ['finish', {}],
] as const

function reply(messages: readonly Message[], choice: number): string {
  const request = messages.at(-1)!.content
  const asked = request.slice(request.lastIndexOf('Respond with'))
  const inJson = asked.startsWith('Respond with a JSON')
  if (request.includes('in JSON, please') && !inJson) return 'no'
  const seen = request.match(/\[\[ ## observation_\d+ ## \]\]/g)?.length ?? 0
  const [name, args] = STEPS[seen] ?? STEPS.at(-1)!
  const values: Record<string, unknown> = {
    reasoning: `Since ${request.length}.`,
    rationale: 'All of it.',
    answer: `answer ${choice} to ${request.length} «é»`,
    label: 'yes',
    score: '0.25',
    why: '{"a": [1, 2]}',
    next_thought: `Step ${seen}.`,
    next_tool_name: name,
    next_tool_args: JSON.stringify(args),
  }
  const fields = Object.keys(values).filter((field) => new RegExp(`[\`# ]${field}[\` ]`).test(asked))
  if (inJson) return JSON.stringify(Object.fromEntries(fields.map((field) => [field, values[field]])))
  return `${fields.map((field) => `[[ ## ${field} ## ]]\n${values[field]}`).join('\n\n')}\n\n[[ ## completed ## ]]`
}

const tools = [
  tool(
    z.object({ query: z.string(), k: z.int().default(2) }).describe('Finds passages.\n\n    Best first.'),
    function search({ query, k }) {
      return Array.from({ length: k }, (_, i) => `${query} ${i}\n«ß»`)
    },
  ),
  tool(z.object({ about: z.string(), places: z.array(z.string()) }).describe('Knows facts.'), function facts({ about, places }) {
    return { about, places, flags: [true, null, 1.5], é: '日本' }
  }),
  tool(z.object({ items: z.record(z.string(), z.int()) }).describe('Counts.'), function count({ items }) {
    return Object.keys(items).length
  }),
]

function moduleOf({ module, signature, demos = [] }: Wish): Module {
  if (module === 'ReAct') return new ReAct(signature, { tools, maxIters: 5 })
  if (module === 'MultiChainComparison') return new MultiChainComparison(signature, { M: 2 })
  const program = module === 'Predict' ? new Predict(signature) : new ChainOfThought(signature)
  program.demos = [...demos]
  return program
}

async function call(wish: Wish): Promise<Loose> {
  const { history, ...inputs } = wish.inputs
  const given = history ? { ...inputs, history: new History(history) } : inputs
  const options = wish.config ? [{ config: wish.config as LMOptions }] : []
  const forward = moduleOf(wish).call as (this: Module, ...args: unknown[]) => Promise<Prediction>
  return fieldsOf(await forward.call(moduleOf(wish), given, ...options))
}

const missing = noPeers()
beforeEach(({ skip }) => skip(missing !== null, missing ?? ''))

let server: ScriptedServer
let theirs: { readonly results: Loose[]; readonly history: string }
let theirRequests: Asked[]
let lm: LM
const ours: { result: Loose; requests: Asked[] }[] = []

beforeAll(async () => {
  server = await scriptedServer(reply)
  if (missing !== null) return
  const calls = CALLS.map((wish) => ({ demos: [], config: {}, ...wish }))
  theirs = await python('modules.py', { base_url: server.baseUrl, calls })
  theirRequests = server.take()
  lm = new LM('openai/stub', { apiBase: server.baseUrl, apiKey: 'none', numRetries: 0, maxTokens: 100, seed: 3 })
  for (const wish of CALLS) ours.push({ result: await context({ lm }, () => call(wish)), requests: server.take() })
}, SLOW)
afterAll(() => server.close())

describe('the same requests on the wire as dspy', () => {
  it.each(CALLS.map((wish, i) => [`${wish.module} of ${wish.signature}`, i] as const))('%s', (_, i) => {
    const before = ours.slice(0, i).reduce((sum, { requests }) => sum + requests.length, 0)
    const { result, requests } = ours[i]!
    const wanted = theirRequests.slice(before, before + requests.length)
    expect(requests).toEqual(wanted)
    const bytes = (all: readonly Asked[]) => all.map(({ messages }) => JSON.stringify(messages))
    expect(bytes(requests)).toEqual(bytes(wanted))
    expect(result).toEqual(theirs.results[i])
  })

  it('nothing else', () => {
    const counts = ours.map(({ requests }) => requests.length)
    expect(counts).toEqual([1, 1, 2, 1, 1, 1, 1, 6, 6, 1])
    expect(theirRequests).toHaveLength(counts.reduce((sum, count) => sum + count))
  })
})

it('inspectHistory reads as inspect_history does', () => {
  const untimed = (text: string) => text.replace(/^\[\d{4}-.*\]$/gm, '[time]')
  expect(untimed(String(lm.inspectHistory(2)))).toBe(untimed(theirs.history))
})
