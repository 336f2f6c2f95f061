// The benchmarks' few flags.

import { parseArgs } from 'node:util'

export interface BenchOptions {
  readonly model: string
  readonly device: 'cpu' | 'tfjs' | 'cuda' | 'auto'
  readonly rounds: number
  /** A tiny model's program asks as the tutorial prints it (ChatAdapter, zero-shot); a larger one gets XMLAdapter and demonstrations. */
  readonly tiny: boolean
  /** Without the Python peer. */
  readonly alone: boolean
}

export function benchOptions(): BenchOptions {
  const { values } = parseArgs({
    options: {
      model: { type: 'string', default: 'HuggingFaceTB/SmolLM2-135M-Instruct' },
      device: { type: 'string', default: 'auto' },
      rounds: { type: 'string', default: '3' },
      alone: { type: 'boolean', default: false },
    },
  })
  return {
    model: values.model!,
    tiny: values.model!.includes('arbor-tiny'),
    device: values.device as BenchOptions['device'],
    rounds: Number(values.rounds),
    alone: values.alone!,
  }
}
