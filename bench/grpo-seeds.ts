// The tutorial's training, seed by seed: 100 GRPO steps of 8 x 4 through the real client and server, then the test questions.
// npm run bench -- grpo-seeds --model FOLDER --seeds 0,1,2; a line of JSON for each seed, and their means.

import { parseArgs } from 'node:util'
import { arbor, dspy, LoraConfig } from '../src'
import { accepts } from '../src/pretrain/fact'
import { type Answers, askAll, type Question } from './_questions'
import { machine } from './_report'

const OPTIONS = {
  model: { type: 'string', default: 'arbor-tiny' },
  device: { type: 'string', default: 'auto' },
  precision: { type: 'string', default: 'auto' },
  seeds: { type: 'string', default: '0,1,2' },
  lr: { type: 'string', default: '3e-4' },
  alpha: { type: 'string', default: '32' },
  rank: { type: 'string', default: '16' },
  steps: { type: 'string', default: '100' },
  examples: { type: 'string', default: '8' },
  rollouts: { type: 'string', default: '4' },
  questions: { type: 'string', default: '0' }, // 0: all
  concurrency: { type: 'string', default: '32' },
  'max-tokens': { type: 'string', default: '96' },
  categories: { type: 'string', default: '' }, // of the questions; empty: all
  adapter: { type: 'string', default: 'chat' }, // xml: with two demonstrations, as a model that follows no other form needs it
} as const

type Values = { readonly [K in keyof typeof OPTIONS]: string }

/** What one seed came to. */
interface Outcome {
  readonly seed: number
  /** The base, asked as the policy is afterwards. */
  readonly before: { readonly greedy: Answers; readonly sampled: Answers }
  readonly seconds: number
  readonly greedy: Answers
  /** Two answers a question. */
  readonly sampled: Answers
  /** Share of right rollouts, mean of each ten steps. */
  readonly training: readonly number[]
}

class SimpleQA extends dspy.Module {
  answer = new dspy.ChainOfThought('question -> answer')
  forward({ question }: { question: string }) {
    return this.answer.call({ question })
  }
}

async function main(): Promise<void> {
  const values = parseArgs({ options: OPTIONS }).values as Values
  const device = values.device as 'auto' | 'cpu' | 'cuda' | 'tfjs'
  const precision = values.precision as 'auto' | 'f32' | 'bf16'
  const server = await arbor.startServer(values.model, { device, precision, onLog: (line) => process.stderr.write(`${line}\n`) })
  const lm = new dspy.LM(`openai/arbor:${values.model}`, {
    provider: new arbor.ArborProvider(),
    apiBase: server.baseUrl,
    temperature: 1,
    maxTokens: Number(values['max-tokens']),
  })
  dspy.configure({ lm, adapter: adapterOf(values) })
  process.stdout.write(`${JSON.stringify({ title: 'grpo-seeds', ...machine(), ...values })}\n`)
  const outcomes: Outcome[] = []
  for (const seed of values.seeds.split(',').map(Number)) {
    outcomes.push(await trainAndTest(values, lm, seed))
    process.stdout.write(`${JSON.stringify(outcomes.at(-1))}\n`)
  }
  await server.close()
  process.stdout.write(`${report(outcomes)}\n`)
}

async function trainAndTest(values: Values, base: dspy.LM, seed: number): Promise<Outcome> {
  const wanted = values.categories.split(',').filter(Boolean)
  const where = ({ category }: Readonly<Record<string, unknown>>) => wanted.length === 0 || wanted.includes(String(category))
  const { trainset, testset } = await dspy.loadExamples('data/simple-qa', { inputs: ['question'], where })
  const lora = new LoraConfig({ r: Number(values.rank), lora_alpha: Number(values.alpha) })
  const compiler = new arbor.ArborGRPO({
    metric: (example, prediction) => accepts(example.answer, prediction.answer),
    numDspyExamplesPerGrpoStep: Number(values.examples),
    numRolloutsPerGrpoStep: Number(values.rollouts),
    numTrainSteps: Number(values.steps),
    excludeDemos: values.adapter === 'chat',
    checkpoint: 'none',
    seed,
    trainKwargs: { learning_rate: Number(values.lr), temperature: 1, lora_config: lora },
  })
  const program = new SimpleQA()
  const demos = values.adapter === 'chat' ? [] : await dspy.loadDemos('data/simple-qa')
  program.answer.demos = demos
  const questions = testset.slice(0, Number(values.questions) || undefined) as unknown as Question[]
  const prompt = { signature: program.answer.signature as unknown as dspy.Signature, demos }
  const ask = (policy: dspy.LM, temperature: number, samples: number) =>
    askAll(policy, prompt, questions, {
      temperature,
      samples,
      concurrency: Number(values.concurrency),
      adapter: adapterOf(values),
    })
  const before = { greedy: await ask(base, 0, 1), sampled: await ask(base, 1, 2) }
  const started = performance.now()
  const trained = await compiler.compile(program, { trainset })
  const seconds = (performance.now() - started) / 1000
  process.stderr.write(`seed ${seed}: ${values.steps} steps in ${seconds.toFixed(1)} s\n`)
  const policy = trained.getLm() as dspy.LM
  const [greedy, sampled] = [await ask(policy, 0, 1), await ask(policy, 1, 2)]
  // The metric is 1 or 0 and a completion that cannot be read costs -1: right is what earned more than nothing.
  const right = compiler.run!.records.map(({ groups }) =>
    mean(groups.flatMap(({ rewards }) => rewards.map((r) => (r > 0 ? 1 : 0)))),
  )
  const tens = Array.from({ length: Math.ceil(right.length / 10) }, (_, i) => mean(right.slice(10 * i, 10 * i + 10)))
  return { seed, before, seconds, greedy, sampled, training: tens.map((share) => Number(share.toFixed(3))) }
}

function adapterOf(values: Values): dspy.Adapter {
  return values.adapter === 'chat' ? new dspy.ChatAdapter() : new dspy.XMLAdapter()
}

function report(outcomes: readonly Outcome[]): string {
  const row = (name: string, of: (outcome: Outcome) => number, digits = 3) => {
    const values = outcomes.map(of)
    return `${name.padEnd(20)} ${mean(values).toFixed(digits).padStart(8)}   ${values.map((value) => value.toFixed(digits)).join('  ')}`
  }
  return [
    `${''.padEnd(20)} ${'mean'.padStart(8)}   seeds ${outcomes.map(({ seed }) => seed).join(', ')}`,
    row('greedy, before', ({ before }) => before.greedy.accuracy),
    row('sampled, before', ({ before }) => before.sampled.accuracy),
    row('greedy', ({ greedy }) => greedy.accuracy),
    row('sampled', ({ sampled }) => sampled.accuracy),
    row('exact, sampled', ({ sampled }) => sampled.exact),
    row('parse, sampled', ({ sampled }) => sampled.parse),
    row('tokens, sampled', ({ sampled }) => sampled.tokens, 1),
    row('seconds of training', ({ seconds }) => seconds, 1),
    ...outcomes.map(({ seed, training }) => `training, seed ${seed}     ${training.map((share) => share.toFixed(2)).join(' ')}`),
  ].join('\n')
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / Math.max(1, values.length)
}

void main()
