// One update: what is trained, what is left out, and what the engine is asked.

import { describe, expect, it } from 'vitest'
import { type FakeCall, FakeEngine } from '../engine/fake-engine'
import { TrainerConfigSchema } from '../protocol'
import { TRAINER_CONFIG } from './fixture'
import { type UpdateRun, updatePolicy } from './policy-update'
import type { TrainingRow } from './training-rows'

/** What the fake engine's policy of version 0 gives. */
const engineLogprob = (token: number, place: number) => -0.1 - ((token * 17 + place * 7) % 50) / 25

function row(reward: number, more: Partial<TrainingRow> = {}): TrainingRow {
  const completion = [100 + Math.round(reward * 10), 105, 257]
  const stored = { logprobs: completion.map(engineLogprob), policyVersion: 0, altered: false, constrained: false }
  const common = { prompt: [1, 2], completion, rewards: null, text: 't', stored } as const
  return { ...common, reward, source: 'id', truncated: false, otherPrompt: false, ...more }
}

async function update(groups: TrainingRow[][], config: object = {}, more: Partial<UpdateRun> = {}) {
  const engine = new FakeEngine()
  await engine.openPolicy('job', { lora: { rank: 1, alpha: 1, targets: ['q_proj'], dropout: 0 }, seed: 0 })
  const entropy = { coef: 0, lastEntropy: null }
  const run = { engine, policy: 'job', policyVersion: 0, step: 2, contextLength: 100, entropy, ...more }
  const result = await updatePolicy(groups, { ...run, config: TrainerConfigSchema.parse({ ...TRAINER_CONFIG, ...config }) })
  const trained = engine.calls.filter((call): call is Extract<FakeCall, { method: 'trainStep' }> => call.method === 'trainStep')
  return { result, trained, calls: engine.calls.map((call) => call.method) }
}

describe('an update', () => {
  it('pushes what was better than its group up and what was worse down, by 1/tokens each with dapo', async () => {
    const { result, trained } = await update([[row(1), row(0)]])
    const advantage = 0.5 / (Math.SQRT1_2 + 1e-4)
    const each = advantage / 6
    expect(result.advantages[0]).toBeCloseTo(advantage, 6)
    expect([...trained[0]!.dLogprobs].map((value) => value / each)).toEqual(
      [-1, -1, -1, 1, 1, 1].map((value) => expect.closeTo(value, 4)),
    )
    expect(result).toMatchObject({ policyVersion: 1, rowsTrained: 2, zeroStdShare: 0, notes: [] })
    expect(result.gap!.max).toBeLessThan(1e-6)
  })

  it('leaves rows without advantage out of the pass but not out of the count', async () => {
    const alone = await update([[row(1), row(0)]])
    const both = await update([
      [row(1), row(0)],
      [row(1), row(1)],
    ])
    expect(both.trained[0]!.sequences).toHaveLength(2)
    expect(both.result).toMatchObject({ rowsTrained: 2, zeroStdShare: 0.5 })
    expect(both.trained[0]!.dLogprobs[0]).toBeCloseTo(alone.trained[0]!.dLogprobs[0]! / 2, 6)
  })

  it('is none when no group has a spread, or when all that could teach was cut', async () => {
    const flat = await update([[row(1), row(1)]])
    expect(flat.calls).not.toContain('trainStep')
    expect(flat.result).toMatchObject({ policyVersion: 0, gradNorm: 0, rowsTrained: 0, loss: null })
    expect(flat.result.notes).toEqual([expect.stringContaining('No group had a spread of rewards')])
    const cut = await update([[row(1, { truncated: true }), row(0, { truncated: true })]])
    expect(cut.calls).not.toContain('trainStep')
    expect(cut.result.notes).toEqual([expect.stringContaining('cut at the token limit')])
    const kept = await update([[row(1, { truncated: true }), row(0)]], { mask_truncated_completions: false })
    expect(kept.result.rowsTrained).toBe(2)
  })

  it('leaves out rows that are too long or empty, and says so', async () => {
    const long = row(1, { prompt: new Array(98).fill(1) })
    const empty = row(0, { completion: [], stored: null })
    const { result, trained } = await update([[long, empty, row(1), row(0)]])
    expect(trained[0]!.sequences).toHaveLength(2)
    expect(result.notes).toEqual([
      '1 of 4 rows are longer than 100 tokens: left out.',
      '1 of 4 completions are empty: nothing to train.',
    ])
    const short = await update([[row(1), row(0)]], { max_seq_len: 4 })
    expect(short.result.rowsTrained).toBe(0)
  })

  it('asks for the base only with a KL term, and keeps all rows then', async () => {
    const groups = [
      [row(1), row(0)],
      [row(1), row(1)],
    ]
    expect((await update(groups)).calls).not.toContain('logprobs')
    const withKl = await update(groups, { beta: 0.1 })
    expect(withKl.calls).toEqual(['openPolicy', 'logprobs', 'trainStep'])
    expect(withKl.result.rowsTrained).toBe(4)
    expect(withKl.result.loss!.metrics.kl).toBeCloseTo(0, 6) // version 0 is the base
  })

  it('takes the stored logprobs of an older version as the old ones, so that clipping sees the distance', async () => {
    const old = [row(1), row(0)].map((r) => ({
      ...r,
      stored: { ...r.stored!, logprobs: r.stored!.logprobs.map((value) => value - 1) },
    }))
    const { result } = await update([old], {}, { policyVersion: 1 })
    expect(result.loss!.metrics.clipHigh).toBe(0.5) // the good row moved up by e, over 1.28
    expect(result.gap).toBeNull()
  })

  it('goes over the same rows num_iterations times, against the first pass', async () => {
    const { result, trained } = await update([[row(1), row(0)]], { num_iterations: 3 })
    expect(trained).toHaveLength(3)
    expect(result.policyVersion).toBe(3)
    expect(result.loss!.metrics.clipRegion).toBeGreaterThan(0)
    expect(result.gap!.max).toBeLessThan(1e-6) // of the first pass
  })

  it('keeps the gap of rollouts under truncation apart', async () => {
    const altered = (r: TrainingRow) => ({ ...r, stored: { ...r.stored!, altered: true } })
    const { result } = await update([[altered(row(1)), altered(row(0))]])
    expect(result.gap).toBeNull()
    expect(result.notes).toEqual([expect.stringContaining('6 tokens were sampled under truncation')])
  })

  it('says once that dropout is not applied', async () => {
    const lora_config = { ...TRAINER_CONFIG.lora_config, lora_dropout: 0.05 }
    expect((await update([[row(1), row(0)]], { lora_config }, { step: 1 })).result.notes.join()).toContain('lora_dropout 0.05')
    expect((await update([[row(1), row(0)]], { lora_config }, { step: 2 })).result.notes).toEqual([])
  })

  it('follows the schedule and shortens rewards of long completions', async () => {
    const warm = { lr_scheduler_type: 'constant_with_warmup', warmup_steps: 4, learning_rate: 1 }
    expect((await update([[row(1), row(0)]], warm, { step: 1 })).result.learningRate).toBe(0)
    expect((await update([[row(1), row(0)]], warm, { step: 3 })).result.learningRate).toBe(0.5)
    const soft = { soft_completion_penalty_length: 1, max_completion_length: 5, scale_rewards: false }
    expect((await update([[row(1), row(0)]], soft)).result.advantages).toEqual([0.25, -0.25])
  })

  it('gives the entropy bonus the weight its controller has come to, over all rows', async () => {
    const groups = [
      [row(1), row(0)],
      [row(1), row(1)],
    ]
    const adaptive = { use_adaptive_entropy: true, entropy_coef: 0.01, entropy_target: 0.2 }
    const off = await update(groups, adaptive, { entropy: { coef: 0.01, lastEntropy: null } })
    expect(off.result).toMatchObject({ entropyCoef: 0, rowsTrained: 4 })
    const on = await update(groups, adaptive, { entropy: { coef: 0.015, lastEntropy: 0.1 } })
    expect(on.result).toMatchObject({ entropyCoef: 0.015, rowsTrained: 4 })
    expect((await update(groups)).result.entropyCoef).toBeNull()
  })

  it('normalises several rewards each for itself, so that a wide one does not drown a narrow one', async () => {
    const several = (...rewards: number[]) => row(rewards[0]! + rewards[1]!, { rewards })
    const groups = [[several(0, 1), several(100, 1), several(0, 0), several(100, 0)]]
    const gdpo = { multi_objective_aggregation: 'normalize_then_sum', reward_weights: [1, 1] }
    const { result } = await update(groups, gdpo)
    expect(result.advantages.map((advantage) => Math.round(advantage) + 0)).toEqual([0, 1, -1, 0])
    const summed = (await update(groups)).result.advantages
    expect(summed.map((advantage) => Math.round(advantage))).toEqual([-1, 1, -1, 1])
    await expect(update([[row(1), row(0)]], gdpo)).rejects.toThrow('Return several from the metric')
    await expect(update(groups, { ...gdpo, reward_weights: [1] })).rejects.toThrow('2 rewards where 1 are expected')
  })
})
