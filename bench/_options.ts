// The benchmarks' few flags.

import { parseArgs } from 'node:util'
import type { PrecisionWish } from '../src/engine/precision'

export interface BenchOptions {
  readonly model: string
  readonly device: 'cpu' | 'tfjs' | 'cuda' | 'auto'
  /** Of frozen weights. */
  readonly precision: PrecisionWish
  readonly rounds: number
  /** A tiny model's program asks as the tutorial prints it (ChatAdapter, zero-shot); a larger one gets XMLAdapter and demonstrations. */
  readonly tiny: boolean
  /** Who runs beside us, by name (_contenders.ts); empty with --alone. */
  readonly peers: string
  /** Rows of the peers' training micro-batch. */
  readonly microBatch: string
  /** Without a peer. */
  readonly alone: boolean
}

export function benchOptions(): BenchOptions {
  const { values } = parseArgs({
    options: {
      model: { type: 'string', default: 'HuggingFaceTB/SmolLM2-135M-Instruct' },
      device: { type: 'string', default: 'auto' },
      precision: { type: 'string', default: 'auto' },
      rounds: { type: 'string', default: '3' },
      peers: { type: 'string', default: 'f32,f32-shared' },
      'micro-batch': { type: 'string', default: '4' },
      alone: { type: 'boolean', default: false },
    },
  })
  return {
    model: values.model!,
    tiny: values.model!.includes('arbor-tiny'),
    device: values.device as BenchOptions['device'],
    precision: values.precision as PrecisionWish, // the engine refuses others
    rounds: Number(values.rounds),
    peers: values.alone ? '' : values.peers!,
    microBatch: values['micro-batch']!,
    alone: values.alone!,
  }
}
