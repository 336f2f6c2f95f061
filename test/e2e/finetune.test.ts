// BootstrapFinetune through a real server and engine, then GRPO on top of what it made.

import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { ArborGRPO, ArborProvider, BetterTogether, BootstrapFinetune, type ServerInfo } from '../../src/optimize'
import { context, DummyLM, Example, LM, Predict } from '../../src/program'
import { freshFolder, PlainTextAdapter, recordsOnDisk, serve, whyNot } from './tiny'

const lora_config = { r: 8, lora_alpha: 16, target_modules: 'all-linear' as const, lora_dropout: 0 }
const storagePath = freshFolder()
let missing: string | null
let server: ServerInfo
beforeAll(async () => {
  missing = await whyNot()
  if (missing === null) server = await serve({ storagePath })
})
beforeEach(({ skip }) => skip(missing !== null, missing ?? ''))
afterAll(() => server?.close())

const trainset = ['one', 'two', 'three', 'four'].map((question) =>
  new Example({ question, answer: 'yes' }).withInputs('question'),
)
const lm = () =>
  new LM('openai/arbor:tiny-chat', { provider: new ArborProvider(), apiBase: server.baseUrl, temperature: 1, maxTokens: 6 })
const bootstrap = () =>
  new BootstrapFinetune({ trainKwargs: { num_train_epochs: 100, batch_size: 4, learning_rate: 0.01, lora_config } })
const inPlainText = <T>(run: () => Promise<T>) => context({ adapter: new PlainTextAdapter() }, run)

function student(): Predict {
  const program = new Predict('question -> answer')
  program.setLm(lm())
  return program
}

function teacher(): Predict {
  const program = new Predict('question -> answer')
  program.setLm(new DummyLM(() => 'yes'))
  return program
}

describe('BootstrapFinetune', () => {
  it('teaches a model what its teacher says, and it still says so after a restart', async () => {
    const optimizer = bootstrap()
    const tuned = await inPlainText(() => optimizer.compile(student(), { trainset, teacher: teacher() }))
    const { steps } = optimizer.runs[0]!
    expect(steps).toHaveLength(100)
    expect(steps.at(-1)!.loss).toBeLessThan(steps[0]!.loss / 10)
    const ask = () => inPlainText(() => tuned.call({ question: 'one' }, { config: { temperature: 0 } }))
    expect(await ask()).toMatchObject({ answer: 'yes' })
    await server.close()
    server = await serve({ storagePath, port: server.port })
    expect(await ask()).toMatchObject({ answer: 'yes' })
  })

  it('goes before GRPO in one call, which starts from its weights', async () => {
    const grpo = new ArborGRPO({
      metric: (_, { answer }) => String(answer).startsWith('yes'),
      numTrainSteps: 1,
      numDspyExamplesPerGrpoStep: 2,
      trainKwargs: { lora_config, learning_rate: 1e-4 },
      checkpoint: 'none',
    })
    const both = new BetterTogether({
      metric: (_, { answer }) => String(answer).startsWith('yes'),
      optimizers: { sft: bootstrap(), rl: grpo },
    })
    const run = () => both.compile(student(), { trainset, teacher: teacher(), strategy: 'sft -> rl', valsetRatio: 0 })
    const program = await inPlainText(run)
    expect(program.flagCompilationErrorOccurred, String(program.compilationError)).toBe(false)
    const [record] = recordsOnDisk(storagePath, grpo.run!.jobId)
    // Its logits are bounded by its fixed norm, so it can't be surer than this; the base says yes once in thousands.
    expect(record!.reward).toBeGreaterThan(0.2)
  })
})
