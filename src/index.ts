// Everything a notebook may import, by name; nothing else.

export { LoraConfig } from './optimize/lora-config'
export * as dspy from './program'
