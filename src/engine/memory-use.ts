// Where a device's memory goes, part by part, for a person who ran out of it.

import { type MemoryPart, OutOfMemoryError } from '../errors'
import { type InferenceLimits, passBytes, slotBytes } from './inference-plan'
import { weightBytes } from './memory-plan'
import type { ModelConfig } from './model-config'
import type { Backend } from './ops/ops'
import type { PolicyWeights } from './policy-weights'

/** What is known when memory runs out: while a model is loaded, not all of it. */
export interface MemoryFacts {
  readonly config: ModelConfig
  readonly backend: Pick<Backend, 'device' | 'precision' | 'activations'>
  readonly limits?: InferenceLimits
  /** Of training passes. */
  readonly activationBytes?: number
  readonly policies?: Iterable<Pick<PolicyWeights, 'parameters' | 'frozen' | 'spec'>>
}

/** A trained value, its gradient, its two moments. */
const TRAINED_BYTES = 16
const FROZEN_BYTES = 4

/** The same error with a plan in its message and beside it; any other error as it is. */
export function explainMemory(error: unknown, facts: MemoryFacts | null): unknown {
  if (!(error instanceof OutOfMemoryError) || error.plan !== null || facts === null) return error
  const plan = memoryParts(facts)
  const { op } = error
  return new OutOfMemoryError(`${error.message}.\n${planText(plan, facts)}`, { op, plan, cause: error })
}

/** In the order in which they are taken. */
export function memoryParts({ config, backend, limits, activationBytes, policies = [] }: MemoryFacts): MemoryPart[] {
  const { precision } = backend
  const parts: MemoryPart[] = [
    {
      what: `the model's weights in ${precision}`,
      bytes: weightBytes(config, precision),
      lower: precision === 'f32' ? '--precision bf16 halves them; else a smaller model' : 'a smaller model',
    },
  ]
  if (limits) parts.push(...inferenceParts(config, backend, limits))
  if (activationBytes !== undefined)
    parts.push({ what: "a training pass's activations", bytes: activationBytes, lower: '--memory GIB (startServer: memory)' })
  return [...parts, ...policyParts([...policies])]
}

function inferenceParts(config: ModelConfig, { activations }: MemoryFacts['backend'], limits: InferenceLimits): MemoryPart[] {
  const { slots, tokens, sequences } = limits
  return [
    {
      what: `keys and values of rollouts, up to ${slots} tokens, as they are needed`,
      bytes: slots * slotBytes(config, activations),
      lower: 'fewer rollouts at once, shorter prompts or max_tokens',
    },
    {
      what: `a pass of rollouts, up to ${tokens} tokens and the logits of ${sequences} completions`,
      bytes: passBytes(config, limits, activations),
      lower: 'a model with a smaller vocabulary; in code, batchTokens and batchSequences of LocalEngine',
    },
  ]
}

function policyParts(policies: readonly Pick<PolicyWeights, 'parameters' | 'frozen' | 'spec'>[]): MemoryPart[] {
  const kinds = [
    {
      of: policies.filter(({ spec, frozen }) => spec !== null && !frozen),
      what: 'adapters with gradients and moments',
      lower: 'r or target_modules in lora_config, fewer jobs at once',
    },
    {
      of: policies.filter(({ spec, frozen }) => spec === null && !frozen),
      what: 'policies of all weights with gradients and moments',
      lower: 'a lora_config: an adapter takes a hundredth of it',
    },
    { of: policies.filter(({ frozen }) => frozen), what: 'saved policies that are asked', lower: 'fewer of them at once' },
  ]
  return kinds
    .filter(({ of }) => of.length > 0)
    .map(({ of, what, lower }) => ({
      what: `${of.length} ${what}`,
      bytes: of.reduce((sum, one) => sum + bytesOf(one), 0),
      lower,
    }))
}

function bytesOf({ parameters, frozen }: Pick<PolicyWeights, 'parameters' | 'frozen'>): number {
  return parameters * (frozen ? FROZEN_BYTES : TRAINED_BYTES)
}

function planText(plan: readonly MemoryPart[], { backend }: MemoryFacts): string {
  const gib = (bytes: number) => `${(bytes / 1024 ** 3).toFixed(2)} GiB`.padStart(12)
  const width = Math.max(...plan.map(({ what }) => what.length))
  const lines = plan.map(({ what, bytes, lower }) => `  ${what.padEnd(width)} ${gib(bytes)}  less by: ${lower}`)
  const whole = `  ${'together'.padEnd(width)} ${gib(plan.reduce((sum, { bytes }) => sum + bytes, 0))}`
  const others =
    backend.device === 'cuda' ? '\nOther programs on this GPU: nvidia-smi shows them, and --device cpu needs none of it.' : ''
  return `What this engine takes of it at most:\n${lines.join('\n')}\n${whole}${others}`
}
