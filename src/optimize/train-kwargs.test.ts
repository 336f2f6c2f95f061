import { describe, expect, it } from 'vitest'
import { LM, type LMOptions } from '../program'
import type { TrainKwargs } from '../protocol'
import { LoraConfig } from './lora-config'
import { agreeOnSampling, prepareTrainKwargs } from './train-kwargs'

const lora_config = { r: 16, lora_alpha: 32, target_modules: 'all-linear', lora_dropout: 0 } as const
const RUN = { rollouts: 4, steps: 12, groups: 8, seed: 5 }
const prepare = (kwargs: object) => prepareTrainKwargs(kwargs as TrainKwargs, RUN)
const notes = (kwargs: object) => prepare(kwargs).notes.join('\n')

describe('prepareTrainKwargs', () => {
  it("takes the tutorial's dictionary as it is", () => {
    const { trainerConfig } = prepare({
      per_device_train_batch_size: 1,
      gradient_accumulation_steps: 4,
      temperature: 1.0,
      learning_rate: 5e-6,
      lora_config: new LoraConfig({ r: 16, lora_alpha: 16, lora_dropout: 0.05, bias: 'none', task_type: 'CAUSAL_LM' }),
      num_training_gpus: 2,
      num_inference_gpus: 2,
      loss_type: 'dapo',
      report_to: 'wandb',
    })
    expect(trainerConfig).toMatchObject({ num_generations: 4, groups_per_step: 8, max_steps: 12, seed: 5, learning_rate: 5e-6 })
    expect(trainerConfig).toMatchObject({
      lr_scheduler_type: 'constant_with_warmup',
      scale_rewards: true,
      beta: 0,
      report_to: 'wandb',
    })
    expect(trainerConfig.lora_config).toMatchObject({ r: 16, target_modules: 'all-linear', lora_dropout: 0.05 })
  })

  it('takes a rate that moves a LoRA where none is given', () => {
    expect(prepare({ lora_config }).trainerConfig.learning_rate).toBe(3e-4)
    expect(prepare({ lora_config, learning_rate: 0 }).trainerConfig.learning_rate).toBe(0)
  })

  it('names an unknown key with the nearest known one', () => {
    expect(() => prepare({ learning_rat: 1 })).toThrow('trainKwargs has no "learning_rat". Did you mean "learning_rate"?')
    expect(() => prepare({ loraConfig: lora_config })).toThrow('Did you mean "lora_config"?')
    expect(() => prepare({ lora_config: { ...lora_config, lora_alfa: 3 } })).toThrow(/lora_config.*lora_alfa/)
  })

  it('names a value that cannot be', () => {
    expect(() => prepare({ beta: -1 })).toThrow(/trainKwargs\.beta: .*\(got -1\)/)
    expect(() => prepare({ loss_type: 'ppo' })).toThrow(/trainKwargs\.loss_type: .*\(got "ppo"\)/)
    expect(() => prepare({ lora_config: { ...lora_config, target_modules: ['qproj'] } })).toThrow(/lora_config\.target_modules/)
  })

  it('notes what a person should know, once each', () => {
    expect(notes({ lora_config, learning_rate: 5e-6 })).toMatch(/^learning_rate 0\.000005 is low for a LoRA.*3e-4 to 5e-4/)
    expect(notes({ lora_config: { ...lora_config, lora_dropout: 0.05 } })).toMatch(
      /^lora_dropout 0\.05 is accepted and not applied/,
    )
    expect(notes({ lora_config, num_training_gpus: 2, num_inference_gpus: 3 })).toMatch(
      /GPU split \(3 for rollouts, 2 for training\)/,
    )
    expect(notes({})).toMatch(/^No lora_config/)
    expect(notes({ lora_config, learning_rate: 1e-3, mask_truncated_completions: false })).toBe('')
  })
})

describe('agreeOnSampling', () => {
  const agree = (lm: LMOptions, kwargs: TrainKwargs) => agreeOnSampling(new LM('openai/arbor:m', lm), kwargs)

  it('gives an LM without sampling values those of trainKwargs', () => {
    expect(agree({}, { temperature: 0.7, top_k: 20, repetition_penalty: 1.1 })).toEqual({
      lm: { temperature: 0.7, topK: 20, repetitionPenalty: 1.1 },
      kwargs: { temperature: 0.7, top_k: 20, repetition_penalty: 1.1 },
    })
  })

  it('gives the trainer those of the LM', () => {
    expect(agree({ temperature: 0.9, topP: 0.95 }, {})).toEqual({
      lm: { temperature: 0.9, topP: 0.95 },
      kwargs: { temperature: 0.9, top_p: 0.95 },
    })
  })

  it('samples at temperature 1 where nobody said', () => {
    expect(agree({}, {})).toEqual({ lm: { temperature: 1 }, kwargs: { temperature: 1 } })
  })

  it('is an error where they disagree, zero included', () => {
    expect(() => agree({ temperature: 1 }, { temperature: 0.7 })).toThrow(
      /temperature 1, trainKwargs says temperature: 0\.7.*must agree/,
    )
    expect(() => agree({ temperature: 0 }, { temperature: 1 })).toThrow(/temperature 0/)
    expect(() => agree({ topK: 0 }, { top_k: 5 })).toThrow(/topK 0, trainKwargs says top_k: 5/)
    expect(agree({ temperature: 0.7 }, { temperature: 0.7 }).kwargs).toEqual({ temperature: 0.7 })
  })
})
