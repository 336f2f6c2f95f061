// What a real Arbor is told of a configuration; test/peers/arbor-target.test.ts asks Arbor itself.

import { describe, expect, it } from 'vitest'
import { TrainerConfigSchema, type TrainKwargs } from '../protocol'
import { forArbor } from './arbor-target'

const lora_config = { r: 8, lora_alpha: 16, target_modules: 'all-linear' as const, lora_dropout: 0 }
const RUN = { steps: 10, groups: 3 }
const target = (given: TrainKwargs = {}, group = 4) =>
  forArbor(TrainerConfigSchema.parse({ max_seq_len: null, ...given, num_generations: group }), given, RUN)

describe('what a real Arbor is told', () => {
  it('an update of every group, and the LoRA in its four fields', () => {
    const { trainKwargs, notes } = target({ lora_config: { ...lora_config, bias: 'none', task_type: 'CAUSAL_LM' } })
    expect(trainKwargs).toMatchObject({ max_steps: 30, max_seq_len: 2048, gradient_checkpointing: true, num_generations: 4 })
    expect(Object.keys(trainKwargs['lora_config'] as object)).toEqual(['r', 'lora_alpha', 'target_modules', 'lora_dropout'])
    expect(notes.join(' ')).toMatch(/up to 3 updates.*max_seq_len is not given/s)
  })

  it.each([
    [4, 1, 1, 4],
    [6, 1, 1, 6],
    [6, 2, 1, 3],
    [6, 2, 3, 1],
    [24, 2, 4, 3],
  ])(
    'rows that a group of %i divides on %i GPUs in %i parts: %i',
    (group, num_training_gpus, gradient_accumulation_steps, rows) => {
      const { trainKwargs } = target({ num_training_gpus, gradient_accumulation_steps }, group)
      expect(trainKwargs['per_device_train_batch_size']).toBe(rows)
    },
  )

  it('values that are its own as they are, sampling values and seed not at all', () => {
    const given = {
      beta: 0.04,
      max_steps: 500,
      max_seq_len: 512,
      scale_rewards: 'group' as const,
      report_to: ['wandb'],
      top_p: 0.9,
      seed: 3,
    } satisfies TrainKwargs
    const { trainKwargs } = target(given)
    expect(trainKwargs).toMatchObject({ beta: 0.04, max_steps: 500, max_seq_len: 512, scale_rewards: true, report_to: 'wandb' })
    for (const key of ['top_p', 'seed', 'fp16', 'groups_per_step', 'epsilon']) expect(trainKwargs).not.toHaveProperty(key)
    expect(target({ max_completion_length: 64 }).trainKwargs['max_seq_len']).toBeNull()
    expect(target({ epsilon: 0.2 }).trainKwargs).not.toHaveProperty('epsilon') // Arbor's own value: no mistake
  })

  it.each<[TrainKwargs, RegExp]>([
    [{ epsilon: 0.1, num_iterations: 2 }, /trainKwargs\.epsilon, trainKwargs\.num_iterations/],
    [{ num_training_gpus: 0 }, /must be at least 1/],
    [{ num_training_gpus: 2, gradient_accumulation_steps: 3 }, /at least 6/],
    [{ per_device_train_batch_size: 6 }, /6 × 1 GPUs .* is 6; .*multiple of 4/],
    [{ fp16: true }, /fp16/],
    [{ logging_steps: 0.5 }, /logging_steps/],
    [{ report_to: ['wandb', 'tensorboard'] }, /takes one/],
  ])('%o is refused', (given, words) => {
    expect(() => target(given)).toThrow(words)
  })
})
