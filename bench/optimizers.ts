// The tutorial's table, measured: every optimizer on the same program, model and questions; score on held-out questions against what it cost.
// npm run bench -- optimizers --model arbor-tiny [--only ArborGRPO,SIMBA] [--seeds 0,1] [--train N --val N --test N --steps N]

import { parseArgs } from 'node:util'
import { arbor, dspy, LoraConfig, tasks } from '../src'
import { machine } from './_report'

const OPTIONS = {
  model: { type: 'string', default: 'arbor-tiny' },
  device: { type: 'string', default: 'auto' },
  only: { type: 'string', default: '' },
  seeds: { type: 'string', default: '0' },
  train: { type: 'string' },
  val: { type: 'string' },
  test: { type: 'string' },
  steps: { type: 'string' }, // of GRPO
} as const

interface Setup {
  readonly settings: tasks.OptimizerSettings
  readonly data: Awaited<ReturnType<typeof tasks.loadSimpleQA>>
  /** Samples at temperature 1, as GRPO needs it. */
  readonly lm: dspy.LM
  /** The same model's likeliest answer: what prompt optimizers judge by, and what the test asks for. */
  readonly greedy: dspy.LM
  /** The same model where it writes about prompts. */
  readonly writer: dspy.LM
  readonly seed: number
}

/** Makes the program better; throws where the model can't do what the optimizer asks of it. */
type Contender = (setup: Setup) => Promise<dspy.Module>

/** What one optimizer came to. Tokens and answers are those of the search alone, without the test. */
interface Outcome {
  readonly optimizer: string
  readonly seed: number
  /** Percent of the test questions answered rightly; null where the optimizer failed. */
  readonly score: number | null
  /** Wilson's interval, 95 %. */
  readonly low: number | null
  readonly high: number | null
  readonly answers: number
  readonly promptTokens: number
  readonly completionTokens: number
  readonly seconds: number
  readonly note: string
}

const metric = tasks.answerMetric

const CONTENDERS: Record<string, Contender> = {
  'zero-shot': ({ settings, greedy }) => studentOf(settings, greedy),
  BootstrapRS: async (setup) => bootstrapRS(setup).compile(await studentOf(setup.settings, setup.greedy), setsOf(setup)),
  MIPROv2: async (setup) => {
    const { settings, writer, greedy, seed } = setup
    const models = { promptModel: writer, teacherSettings: teacherSettings(setup) }
    const mipro = new dspy.MIPROv2({ metric, ...models, ...settings.mipro, seed: seed + 9 })
    return mipro.compile(await studentOf(settings, greedy), { ...setsOf(setup), ...settings.miproCompile })
  },
  SIMBA: async (setup) => {
    const { settings, writer, greedy, seed } = setup
    const simba = new dspy.SIMBA({ metric, promptModel: writer, ...settings.simba })
    return simba.compile(await studentOf(settings, greedy), { trainset: setup.data.train, seed })
  },
  GEPA: async (setup) => {
    const { settings, writer, greedy, seed } = setup
    const gepa = new dspy.GEPA({ metric: tasks.answerFeedback, reflectionLm: writer, ...settings.gepa, seed })
    return gepa.compile(await studentOf(settings, greedy), setsOf(setup))
  },
  // The same model with the best demonstrations teaches itself without them.
  BootstrapFinetune: async (setup) => {
    const { settings, lm, greedy, data } = setup
    const teacher = await bootstrapRS(setup).compile(await studentOf(settings, greedy), setsOf(setup))
    const trainKwargs = { ...settings.finetune, lora_config: loraConfig() }
    const finetune = new dspy.BootstrapFinetune({ metric, trainKwargs, excludeDemos: true })
    return finetune.compile<dspy.Module>(await studentOf(settings, lm), { trainset: data.train, teacher })
  },
  ArborGRPO: async (setup) => {
    const { settings, lm, data } = setup
    return grpo(setup, settings.grpo.numTrainSteps).compile(await studentOf(settings, lm), { trainset: data.train })
  },
  BetterTogether: async (setup) => {
    const { settings, lm, seed } = setup
    const optimizers = { p: bootstrapRS(setup), w: grpo(setup, settings.togetherSteps) }
    const both = new dspy.BetterTogether({ metric, optimizers })
    const student = await studentOf(settings, lm)
    return greedily(() => both.compile(student, { ...setsOf(setup), strategy: 'p -> w', seed }))
  },
}

function loraConfig(): LoraConfig {
  return new LoraConfig({ r: 16, lora_alpha: 32 })
}

/** The model itself at temperature 1: greedily it shows one manner of answering alone. */
function teacherSettings({ lm, seed }: Setup): { lm: dspy.LM } {
  return { lm: lm.copy({ seed }) }
}

function bootstrapRS(setup: Setup): dspy.BootstrapRS {
  return new dspy.BootstrapRS({ metric, ...setup.settings.bootstrapRS, teacherSettings: teacherSettings(setup) })
}

function grpo({ settings, seed }: Setup, steps: number): arbor.ArborGRPO {
  return new arbor.ArborGRPO({
    metric,
    ...settings.grpo,
    numTrainSteps: steps,
    numStepsForVal: steps,
    checkpoint: 'none',
    seed,
    trainKwargs: { ...settings.grpoTrain, temperature: 1, lora_config: loraConfig() },
  })
}

async function studentOf({ demos }: tasks.OptimizerSettings, lm: dspy.LM): Promise<tasks.SimpleQA> {
  const program = await tasks.simpleQAProgram({ demos })
  program.setLm(lm)
  return program
}

function setsOf({ data }: Setup): { trainset: dspy.Example[]; valset: dspy.Example[] } {
  return { trainset: data.train, valset: data.val }
}

/** Calls in `run` take the likeliest answer, but for rollouts, which set their own sampling. */
function greedily<T>(run: () => Promise<T>): Promise<T> {
  return dspy.context({ lmOptions: { temperature: 0, seed: 1 } }, run)
}

async function main(): Promise<void> {
  const { values } = parseArgs({ options: OPTIONS })
  const settings = withSizes(tasks.optimizerSettings(values.model, values.device), values)
  const names = values.only === '' ? Object.keys(CONTENDERS) : values.only.split(',')
  const unknown = names.find((name) => !(name in CONTENDERS))
  if (unknown !== undefined) throw new Error(`--only names '${unknown}'; there are ${Object.keys(CONTENDERS).join(', ')}`)
  const device = values.device as 'auto' | 'cpu' | 'cuda' | 'tfjs'
  const server = await arbor.startServer(values.model, { device, onLog: (line) => process.stderr.write(`${line}\n`) })
  const lm = new dspy.LM(`openai/arbor:${values.model}`, {
    provider: new arbor.ArborProvider(),
    apiBase: server.baseUrl,
    temperature: 1,
    maxTokens: settings.maxTokens,
  })
  const adapter = settings.adapter === 'xml' ? new dspy.XMLAdapter() : new dspy.ChatAdapter()
  const { numThreads } = settings
  dspy.configure({ lm, adapter, numThreads, maxErrors: Number.POSITIVE_INFINITY, adapterFallback: false })
  const outcomes: Outcome[] = []
  for (const seed of values.seeds.split(',').map(Number)) {
    const data = await tasks.loadSimpleQA(settings.sizes, seed)
    const setup = {
      settings,
      data,
      lm,
      greedy: lm.copy({ temperature: 0 }),
      writer: lm.copy({ maxTokens: settings.promptMaxTokens }),
      seed,
    }
    for (const name of names) {
      outcomes.push(await measure(name, setup))
      process.stderr.write(`${line(outcomes.at(-1)!)}\n`)
    }
  }
  await server.close()
  const about = { title: 'optimizers', model: values.model, ...machine(), sizes: settings.sizes }
  process.stdout.write(
    `${JSON.stringify(about)}\n${HEAD}\n${outcomes.map(line).join('\n')}\n${JSON.stringify({ ...about, outcomes })}\n`,
  )
}

function withSizes(
  settings: tasks.OptimizerSettings,
  given: { train?: string; val?: string; test?: string; steps?: string },
): tasks.OptimizerSettings {
  const size = (name: 'train' | 'val' | 'test') => Number(given[name] ?? settings.sizes[name])
  const steps = given.steps === undefined ? {} : { togetherSteps: Number(given.steps) }
  const grpoSteps = given.steps === undefined ? {} : { numTrainSteps: Number(given.steps) }
  const sizes = { ...settings.sizes, train: size('train'), val: size('val'), test: size('test') }
  return { ...settings, ...steps, sizes, grpo: { ...settings.grpo, ...grpoSteps } }
}

async function measure(optimizer: string, setup: Setup): Promise<Outcome> {
  const cost = { answers: 0, promptTokens: 0, completionTokens: 0 }
  const count = ({ outputs, usage }: dspy.HistoryEntry) => {
    cost.answers += outputs.length
    cost.promptTokens += usage.promptTokens
    cost.completionTokens += usage.completionTokens
  }
  const started = performance.now()
  const seconds = () => Number(((performance.now() - started) / 1000).toFixed(1))
  try {
    const program = await dspy.context({ lmObservers: [count] }, () => CONTENDERS[optimizer]!(setup))
    const spent = { ...cost, seconds: seconds() }
    return { optimizer, seed: setup.seed, ...(await test(program, setup)), ...spent, note: noteOn(program) }
  } catch (error) {
    const note = error instanceof Error ? error.message : String(error)
    return { optimizer, seed: setup.seed, score: null, low: null, high: null, ...cost, seconds: seconds(), note }
  }
}

/** The test questions, each asked once for the likeliest answer. */
async function test(program: dspy.Module, { data }: Setup): Promise<tasks.TestScore> {
  const evaluate = new dspy.Evaluate({ devset: data.test, metric })
  const { results } = await greedily(() => evaluate.call(program))
  const right = results.filter(({ score }) => Number(score) > 0).length
  return tasks.testScore(right, results.length)
}

/** What the optimizer left in the prompt; a failed step of BetterTogether. */
function noteOn(program: dspy.Module): string {
  const { compilationError } = program as { compilationError?: Error | null }
  const [predictor] = program.predictors()
  const rewritten = predictor!.signature.instructions.startsWith('Given the fields') ? '' : ', own instructions'
  const failed = compilationError ? `; a step failed: ${compilationError.message}` : ''
  return `${predictor!.demos.length} demos${rewritten}${failed}`
}

const HEAD = `${'optimizer'.padEnd(18)} seed   test %   95 % interval   answers   tokens in/out       seconds   note`

function line({ optimizer, seed, score, low, high, ...cost }: Outcome): string {
  const percent = (score: number | null) => (score === null ? '–' : score.toFixed(1))
  const interval = `${percent(low)} … ${percent(high)}`
  const tokens = `${cost.promptTokens} / ${cost.completionTokens}`
  const note = cost.note.length > 90 ? `${cost.note.slice(0, 89)}…` : cost.note
  return [
    optimizer.padEnd(18),
    String(seed).padStart(4),
    percent(score).padStart(8),
    interval.padStart(15),
    String(cost.answers).padStart(9),
    tokens.padStart(17),
    cost.seconds.toFixed(1).padStart(10),
    ` ${note}`,
  ].join(' ')
}

void main()
