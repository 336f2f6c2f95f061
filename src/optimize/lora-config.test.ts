import { describe, expect, it } from 'vitest'
import { LoraConfig } from './lora-config'

describe('LoraConfig', () => {
  it("takes peft's fields, and spreads", () => {
    const config = new LoraConfig({
      r: 8,
      lora_alpha: 16,
      target_modules: ['q_proj', 'v_proj'],
      bias: 'none',
      task_type: 'CAUSAL_LM',
    })
    expect({ ...config, lora_alpha: 32 }).toEqual({
      r: 8,
      lora_alpha: 32,
      target_modules: ['q_proj', 'v_proj'],
      lora_dropout: 0,
      bias: 'none',
      task_type: 'CAUSAL_LM',
    })
  })

  it('has defaults', () => {
    expect({ ...new LoraConfig() }).toMatchObject({ r: 16, lora_alpha: 32, target_modules: 'all-linear', lora_dropout: 0 })
  })

  it.each([
    [{ r: 0 }, /LoraConfig r:/],
    [{ target_modules: 'some' }, /LoraConfig target_modules:/],
    [{ bias: 'all' }, /LoraConfig bias:/],
    [{ lora_alfa: 3 }, /LoraConfig .*lora_alfa/],
  ])('names what cannot be: %j', (fields, message) => {
    expect(() => new LoraConfig(fields as object)).toThrow(message)
  })
})
