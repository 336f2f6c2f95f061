// peft's LoraConfig as an object that spreads: { ...loraConfig, lora_alpha: 32 }.

import { OptionError } from '../errors'
import { type LORA_TARGET_MODULES, type LoraConfigFields, LoraConfigSchema } from '../protocol'

/** Spelt out, not taken from the schema: the compiler must be able to name a cell's variables without zod's own types. */
type Targets = 'all-linear' | (typeof LORA_TARGET_MODULES)[number][]

/** @throws OptionError naming the field that cannot be. */
export class LoraConfig implements LoraConfigFields {
  readonly r: number
  readonly lora_alpha: number
  readonly target_modules: Targets
  readonly lora_dropout: number
  readonly bias: 'none'
  readonly task_type: 'CAUSAL_LM'

  constructor(fields: Partial<LoraConfigFields> = {}) {
    const checked = LoraConfigSchema.safeParse({
      r: 16,
      lora_alpha: 32,
      target_modules: 'all-linear',
      lora_dropout: 0,
      ...fields,
    })
    if (!checked.success) {
      const issue = checked.error.issues[0]!
      throw new OptionError(`LoraConfig ${issue.path.join('.') || ''}: ${issue.message}.`)
    }
    const { data } = checked
    this.r = data.r
    this.lora_alpha = data.lora_alpha
    this.target_modules = data.target_modules
    this.lora_dropout = data.lora_dropout
    this.bias = 'none'
    this.task_type = 'CAUSAL_LM'
  }
}
