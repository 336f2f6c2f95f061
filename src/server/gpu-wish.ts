// num_training_gpus and num_inference_gpus: what a client wishes for, and what to say where this server has fewer.

import type { z } from 'zod'
import type { GpuSplit, OpenedPolicy } from '../engine/engine'
import type { InitializeRequestSchema } from '../protocol'

/** Arbor reads gpu_config; a client may name the numbers in trainer_config alone. */
export function gpuWish({
  gpu_config,
  trainer_config: config,
}: Pick<z.output<typeof InitializeRequestSchema>, 'gpu_config' | 'trainer_config'>): GpuSplit {
  const multi = gpu_config?.multi ?? config
  return { training: multi.num_training_gpus, inference: multi.num_inference_gpus }
}

/** Null where the wish was met, or there was none: one and one is what clients send when nobody asks. */
export function gpuNote(wish: GpuSplit, got: OpenedPolicy['gpus']): string | null {
  if (got?.apart || Math.max(wish.training, wish.inference) <= 1) return null
  const there = got ? `all ${got.training} GPUs here do` : 'one device here does'
  const more = wish.training > 0 && wish.inference > 0 ? `, where there are ${wish.training + wish.inference}` : ''
  return `The split of GPUs (${wish.inference} for rollouts, ${wish.training} for training) is kept by a server with --gpus${more}: ${there} both.`
}
