// Everything a notebook may import, by name; nothing else.

export * as arbor from './optimize'
export { LoraConfig } from './optimize/lora-config'
export * as dspy from './program'
