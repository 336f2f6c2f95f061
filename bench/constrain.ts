// What answers in JSON cost: the mask of a token by itself, the first time that a schema is seen and later; then a model that answers with and without.

import { performance } from 'node:perf_hooks'
import type { GenerateRequest } from '../src/engine/engine'
import { resolveModel } from '../src/engine/model-source'
import { hasToken } from '../src/engine/sampling'
import { WorkerEngine } from '../src/engine/worker-engine'
import { Constraint, Course } from '../src/server/constrain/constraint'
import { jsonObjectGrammar, jsonSchemaGrammar } from '../src/server/constrain/json-schema'
import { Vocabulary } from '../src/server/constrain/vocabulary'
import { loadTokenizer, type Tokenizer } from '../src/server/tokenizer'
import { benchOptions } from './_options'
import { interleave, machine, median, print } from './_report'

const text = { type: 'string' }
const SCHEMAS: Record<string, object> = {
  'a reasoning and an answer': {
    type: 'object',
    properties: { reasoning: text, answer: text },
    required: ['reasoning', 'answer'],
  },
  'twelve fields, lists of objects': {
    type: 'object',
    properties: {
      ...Object.fromEntries(['id', 'name', 'street', 'city', 'country', 'note'].map((name) => [name, text])),
      age: { type: 'integer', minimum: 0, maximum: 150 },
      mail: { type: 'string', format: 'email' },
      state: { enum: ['new', 'active', 'closed'] },
      score: { type: 'number', minimum: 0, maximum: 1 },
      tags: { type: 'array', items: { type: 'string', maxLength: 20 }, maxItems: 8 },
      items: {
        type: 'array',
        items: { type: 'object', properties: { sku: text, count: { type: 'integer' } }, required: ['sku', 'count'] },
      },
    },
    required: ['id', 'name', 'age', 'mail', 'state', 'score', 'tags', 'items'],
  },
  'a text of at most 200 characters': {
    type: 'object',
    properties: { text: { type: 'string', maxLength: 200 } },
    required: ['text'],
  },
}
const LIMIT = 200
const COURSES = 16

async function main(): Promise<void> {
  const options = benchOptions()
  const source = await resolveModel(options.model)
  const tokenizer = await loadTokenizer(source)
  process.stdout.write(`Masks: ${options.model}, ${tokenizer.vocab} tokens\n${JSON.stringify(machine())}\n`)
  const vocabulary = timed('the tree of tokens', () => new Vocabulary(tokenizer.bytes()))
  for (const [name, schema] of [['any object', null], ...Object.entries(SCHEMAS)] as const)
    measure(name, schema, { vocabulary, tokenizer })
  const engine = new WorkerEngine({ device: options.device, precision: options.precision })
  await engine.load(source)
  await answers(engine, { vocabulary, tokenizer, rounds: options.rounds })
  await engine.close()
}

function timed<Result>(name: string, work: () => Result): Result {
  const started = performance.now()
  const result = work()
  process.stdout.write(`${name}: ${(performance.now() - started).toFixed(0)} ms\n`)
  return result
}

interface Words {
  readonly vocabulary: Vocabulary
  readonly tokenizer: Tokenizer
}

function constraintOf(schema: object | null, { vocabulary, tokenizer }: Words): Constraint {
  return new Constraint(schema ? jsonSchemaGrammar(schema) : jsonObjectGrammar(), vocabulary, tokenizer.eosTokenIds)
}

/** Answers of somebody who takes any token that may come, text tokens rather than others: first of a schema that is new, then of the same again. */
function measure(name: string, schema: object | null, words: Words): void {
  const constraint = timed(`${name}: the grammar`, () => constraintOf(schema, words))
  for (const when of ['new', 'again']) {
    const costs: number[] = []
    for (let seed = 1; seed <= COURSES; seed++) costs.push(...oneCourse(constraint, words.tokenizer, seed))
    costs.sort((a, b) => a - b)
    const at = (share: number) => `${costs[Math.floor(share * (costs.length - 1))]!.toFixed(0)}`
    const mean = costs.reduce((sum, cost) => sum + cost, 0) / costs.length
    process.stdout.write(
      `  ${when.padEnd(6)} ${costs.length} tokens, µs a token: mean ${mean.toFixed(0)}, median ${at(0.5)}, 99 % ${at(0.99)}, most ${at(1)}; ${constraint.size} masks\n`,
    )
  }
}

/** Microseconds of each token. */
function oneCourse(constraint: Constraint, tokenizer: Tokenizer, seed: number): number[] {
  const course = new Course(constraint, LIMIT)
  const tokens: number[] = []
  const costs: number[] = []
  let state = seed
  const random = (below: number) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return Math.floor((state / 2 ** 32) * below)
  }
  while (tokens.length < LIMIT && !tokenizer.eosTokenIds.includes(tokens.at(-1) ?? -1)) {
    const started = performance.now()
    const mask = course.next(tokens)
    costs.push(1000 * (performance.now() - started))
    let token = random(tokenizer.vocab)
    while (!hasToken(mask, token)) token = (token + 1) % (32 * mask.length)
    tokens.push(token)
  }
  return costs
}

async function answers(engine: WorkerEngine, { rounds, ...words }: Words & { rounds: number }): Promise<void> {
  const { tokenizer } = words
  const prompt = tokenizer.encode('<|im_start|>user\nTell me about Oslo.<|im_end|>\n<|im_start|>assistant\n')
  const sampling = { temperature: 1, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1 }
  const request: GenerateRequest = {
    policy: null,
    prompt,
    seeds: [1, 2, 3, 4, 5, 6, 7, 8],
    maxNewTokens: 64,
    sampling,
    stopTokenIds: [],
  }
  const run = (schema?: object) => async () => {
    const constraint = schema && constraintOf(schema, words)
    const courses = constraint && request.seeds.map(() => new Course(constraint, 10_000))
    const started = performance.now()
    await engine.generate(request, courses ? { allowedTokens: (index, tokens) => courses[index]!.next(tokens) } : {})
    return (performance.now() - started) / 1000
  }
  const essay = { type: 'object', properties: { essay: { type: 'string', minLength: 400 } }, required: ['essay'] }
  const warm = constraintOf(essay, words)
  const known = async () => {
    const courses = request.seeds.map(() => new Course(warm, 10_000))
    const started = performance.now()
    await engine.generate(request, { allowedTokens: (index, tokens) => courses[index]!.next(tokens) })
    return (performance.now() - started) / 1000
  }
  await run()()
  await known()
  const rows = await interleave(rounds, [
    { name: 'free', run: run() },
    { name: 'every token asked for, all allowed', run: free(engine, request) },
    { name: 'JSON, a schema that is known', run: known },
    { name: 'JSON, a schema that is new', run: run(essay) },
  ])
  print(`8 answers of 64 tokens, ${(8 * 64) / median(rows[0]!.rounds)} tokens/s free`, rows)
}

function free(engine: WorkerEngine, request: GenerateRequest) {
  return async () => {
    const started = performance.now()
    await engine.generate(request, { allowedTokens: () => null })
    return (performance.now() - started) / 1000
  }
}

void main()
