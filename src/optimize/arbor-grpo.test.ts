// The loop of compile() against a server that only answers: what it asks for, posts, saves and reports.

import { afterEach, describe, expect, it } from 'vitest'
import {
  ChatAdapter,
  context,
  Example,
  LM,
  type LMOptions,
  Module,
  Predict,
  Prediction,
  type RewardsMetric,
  setProgressObserver,
} from '../program'
import { ArborGRPO, type CompileOptions, type GrpoProgress } from './arbor-grpo'
import { ArborProvider } from './arbor-provider'
import { type ChatBody, type FakeArbor, fakeArbor } from './fake-arbor.fixture'
import type { ArborGRPOOptions } from './grpo-options'

class QA extends Module {
  answer = new Predict('question -> answer')
  forward(inputs: { question: string }) {
    return this.answer.call(inputs)
  }
}
class Two extends QA {
  check = new Predict('question -> answer')
}

const example = (question: string) => new Example({ question }).withInputs('question')
const trainset = ['one', 'two', 'three', 'four'].map(example)
const valset = [example('valid')]
const lora_config = { r: 4, lora_alpha: 8, target_modules: 'all-linear' as const, lora_dropout: 0 }
const SMALL = {
  numDspyExamplesPerGrpoStep: 2,
  numRolloutsPerGrpoStep: 3,
  numTrainSteps: 3,
  numStepsForVal: 1,
  trainKwargs: { lora_config },
}

const YES = '[[ ## answer ## ]]\nyes'
let fake: FakeArbor
afterEach(() => {
  fake.close()
  setProgressObserver(null)
})

interface Setting {
  readonly options?: Partial<ArborGRPOOptions>
  readonly lm?: LMOptions
  readonly compile?: Partial<CompileOptions>
  readonly program?: Module
  readonly reply?: (body: ChatBody, chat: number) => string
  readonly metric?: RewardsMetric
}

async function train({ options, lm, compile, program = new QA(), reply = () => YES, metric = () => 1 }: Setting = {}) {
  fake = await fakeArbor(reply)
  const provider = new ArborProvider()
  const model = new LM('openai/arbor:m', { provider, apiBase: fake.baseUrl, numRetries: 0, ...lm })
  const compiler = new ArborGRPO({ metric, ...SMALL, ...options })
  const trained = await context({ lm: model, adapter: new ChatAdapter() }, () =>
    compiler.compile(program, { trainset, ...compile }),
  )
  return { compiler, trained, run: compiler.run! }
}

describe('compile', () => {
  it('opens a job of the right shape', async () => {
    await train({ program: new Two(), options: { seed: 4 } }).catch(() => null)
    expect(fake.initialized!.trainer_config).toMatchObject({
      num_generations: 3,
      groups_per_step: 4, // two examples, two predictors
      max_steps: 3,
      seed: 4,
      temperature: 1,
      learning_rate: 3e-4,
    })
    expect(fake.initialized).toMatchObject({ model: 'm' })
    expect(fake.initialized).not.toHaveProperty('resume_from')
  })

  it('posts every step as one list of whole groups, and ends the job', async () => {
    const { run } = await train()
    expect(fake.steps.map((step) => step.batch.map((rows) => rows.length))).toEqual([
      [3, 3],
      [3, 3],
      [3, 3],
    ])
    expect(fake.steps[0]!.groups).toMatchObject([{ predictor: 'answer' }, { predictor: 'answer' }])
    expect(fake.steps[0]!.batch[0]![0]!.completion_id).toMatch(/^chat-\d+#0$/)
    expect(fake.steps[0]!.metrics).toEqual({ format_failures: 0 })
    expect(run.records.map((record) => record.step)).toEqual([1, 2, 3])
    expect(fake.terminated).toBe(true)
  })

  it("samples from the job's policy, with the sampling values of trainKwargs where the LM has none", async () => {
    await train({ options: { trainKwargs: { lora_config, temperature: 0.7, top_k: 30 } } })
    expect(new Set(fake.chats.map((chat) => chat['model']))).toEqual(new Set(['arbor:grpo:m:fake:1']))
    expect(fake.chats[0]).toMatchObject({ temperature: 0.7, top_k: 30 })
    expect(new Set(fake.chats.map((chat) => chat['seed'])).size).toBe(fake.chats.length)
  })

  it('refuses an LM that samples otherwise than trainKwargs says, before anything is opened', async () => {
    const options = { trainKwargs: { lora_config, temperature: 0.7 } }
    await expect(train({ lm: { temperature: 1 }, options })).rejects.toThrow(/temperature 1, trainKwargs says temperature: 0\.7/)
    expect(fake.initialized).toBeNull()
  })

  it('leaves the student as it was', async () => {
    const program = new QA()
    const { trained } = await train({ program })
    expect(program.answer.lm).toBeNull()
    expect((trained as QA).answer.lm!.model).toBe('openai/arbor:grpo:m:fake:1')
  })

  it('keeps the notes on the configuration', async () => {
    const { run } = await train({
      options: { trainKwargs: { lora_config: { ...lora_config, lora_dropout: 0.05 }, learning_rate: 5e-6 } },
    })
    expect(run.notes.join('\n')).toMatch(/learning_rate 0\.000005 is low[\s\S]*lora_dropout 0\.05/)
  })

  it('says when a step has nothing to train on', async () => {
    class Silent extends QA {
      override forward() {
        return new Prediction({ answer: 'from nowhere' }) as never
      }
    }
    await expect(train({ program: new Silent() })).rejects.toThrow(
      /Step 1 has no group to train on: the program called no predictor/,
    )
    expect(fake.saved.map((one) => one.name)).toEqual(['interrupted'])
  })

  it('counts format failures', async () => {
    const { run } = await train({ options: { numTrainSteps: 1 }, reply: (_, chat) => (chat < 2 ? 'unreadable' : YES) })
    expect(run.records).toHaveLength(1)
    expect(fake.steps[0]!.metrics).toEqual({ format_failures: 2 })
    expect(fake.steps[0]!.batch.flat().filter((row) => row.reward === -1)).toHaveLength(2)
  })

  it('reports start, every rollout, every record and validation, and the end', async () => {
    const seen: string[] = []
    setProgressObserver(({ kind, payload }) => {
      if (kind.startsWith('grpo')) seen.push(`${kind} ${Object.keys(payload as GrpoProgress)[0]}`)
    })
    await train({ options: { numTrainSteps: 1 }, compile: { valset } })
    expect(seen[0]).toBe('grpo:start model')
    expect(seen.filter((entry) => entry === 'grpo:item rollouts')).toHaveLength(6)
    expect(seen.filter((entry) => !entry.endsWith('rollouts')).slice(1)).toEqual([
      'grpo:item validation',
      'grpo:item record',
      'grpo:item validation',
      'grpo:end status',
    ])
  })
})

describe('checkpoint modes', () => {
  /** Validation scores by decree: before training, then after each step. */
  const scored = async (checkpoint: string, scores: number[]) => {
    let asked = 0
    const metric: RewardsMetric = (row) => (row['question'] === 'valid' ? scores[asked++]! : 1)
    const { run } = await train({ metric, options: { checkpoint, numTrainSteps: scores.length - 1 }, compile: { valset } })
    expect(run.validation.map((entry) => entry.score)).toEqual(scores.map((score) => 100 * score))
    return fake.saved.map((one) => one.name.replace('model_checkpoint_', ''))
  }

  it("'single-best': the last after every validation, the best when it got better", async () => {
    expect(await scored('single-best', [0.5, 0.25, 0.75, 0.75])).toEqual(['last', 'last', 'best', 'last'])
    expect(fake.saved.at(-1)!.metadata).toEqual({ score: 75, best: 75, step_index: 2 })
  })

  it("'improvements': one for each improvement", async () => {
    expect(await scored('improvements', [0, 0.25, 0.25, 0.5])).toEqual(['last', 'step_1', 'last', 'last', 'step_3'])
  })

  it('restoreBest: the job goes back to the best before it ends, and the run says to which', async () => {
    const scores = [0.5, 0.75, 0.25]
    let asked = 0
    const metric: RewardsMetric = (row) => (row['question'] === 'valid' ? scores[asked++]! : 1)
    const { run } = await train({ metric, options: { restoreBest: true, numTrainSteps: 2 }, compile: { valset } })
    expect(fake.restored).toEqual(['best'])
    expect(fake.terminated).toBe(true)
    expect(run.notes).toContain('Restored model_checkpoint_last, which validated best (75 %).')
    await expect(train({ options: { restoreBest: true } })).rejects.toThrow(
      /restoreBest needs validation scores: give compile a valset/,
    )
  })

  it("'none': none", async () => {
    expect(await scored('none', [0, 0.25, 0.5])).toEqual([])
  })
})

describe('several rewards', () => {
  const weights = { correct: 1, brief: 0.5 }

  it('travel apart in every sample, in the order of their weights; the reward is their weighted sum', async () => {
    let calls = 0
    const metric = () => ({ brief: 0.5, correct: calls++ % 2 === 0 })
    const { run } = await train({ metric, options: { rewardWeights: weights, numTrainSteps: 1 }, compile: { valset } })
    const config = fake.initialized!.trainer_config
    expect(config['reward_weights']).toEqual([1, 0.5])
    const samples = fake.steps[0]!.batch.flat()
    expect(new Set(samples.map(({ rewards }) => JSON.stringify(rewards)))).toEqual(new Set(['[1,0.5]', '[0,0.5]']))
    for (const { reward, rewards } of samples) expect(reward).toBe(rewards![0]! + 0.25)
    expect(run.validation.map(({ score }) => score)).toEqual([125, 25])
  })

  it('a rollout that failed has the same in each, so that their weighted sum is its reward', async () => {
    const reply = (_: ChatBody, chat: number) => (chat % 3 === 0 ? 'no fields' : YES)
    await train({ metric: () => ({ correct: 1, brief: 1 }), reply, options: { rewardWeights: weights, numTrainSteps: 1 } })
    const failed = fake.steps[0]!.batch.flat().filter(({ reward }) => reward === -1)
    expect(failed.length).toBeGreaterThan(0)
    for (const { rewards } of failed) expect(rewards![0]! + 0.5 * rewards![1]!).toBeCloseTo(-1)
  })

  it('count 1 each without weights, and must have the same names everywhere', async () => {
    await train({ metric: () => ({ a: 1, b: null }), options: { numTrainSteps: 1 } })
    expect(fake.steps[0]!.batch[0]![0]).toMatchObject({ reward: 1, rewards: [1, null] })
    expect(fake.initialized!.trainer_config['reward_weights']).toBeNull()
    let calls = 0
    const changing = (): Record<string, number> => (calls++ === 0 ? { a: 1, b: 1 } : { a: 1, c: 1 })
    await expect(train({ metric: changing })).rejects.toThrow(/rewards a, c on ".*" and a, b on ".*"\. Return the same names/)
    calls = 0
    await expect(train({ metric: () => (calls++ === 0 ? { a: 1 } : 1) })).rejects.toThrow(
      /one number on ".*" and several rewards \(a\)/,
    )
  })

  it('that the weights do not name are refused', async () => {
    const options = { rewardWeights: weights }
    await expect(train({ metric: () => ({ correct: 1, breif: 1 }), options })).rejects.toThrow('Is "brief" meant?')
    await expect(train({ metric: () => ({ correct: 1 }), options })).rejects.toThrow('no reward "brief"')
    await expect(train({ metric: () => ({ correct: 'yes', brief: 1 }) as never, options })).rejects.toThrow(
      '"yes" as the reward "correct"',
    )
    expect(() => new ArborGRPO({ metric: () => 1, rewardWeights: {} })).toThrow('rewardWeights is empty')
    expect(() => new ArborGRPO({ metric: () => 1, rewardWeights: { a: Number.NaN } })).toThrow('rewardWeights.a is NaN')
    const both = { ...options, trainKwargs: { reward_weights: [1, 1] } }
    expect(() => new ArborGRPO({ metric: () => 1, ...both })).toThrow('keep rewardWeights')
  })
})
