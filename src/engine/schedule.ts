// Learning rate schedules, the formulas of transformers' get_scheduler.

export const SCHEDULES = ['constant', 'constant_with_warmup', 'linear', 'cosine', 'warmup_stable_decay'] as const
export type ScheduleType = (typeof SCHEDULES)[number]

export interface Schedule {
  readonly type: ScheduleType
  /** The highest rate. */
  readonly base: number
  /** Steps from 0 up to `base`; not used by 'constant'. */
  readonly warmup: number
  /** Steps of the whole run; used by 'linear', 'cosine' and 'warmup_stable_decay'. */
  readonly total: number
  /** Steps at `base` after the warm-up, before the fall to 0 in a line; used by 'warmup_stable_decay'. Default 0. */
  readonly stable?: number
}

/** The rate of update `step`, counted from 0. With a warm-up the first rate is 0, as in transformers. */
export function learningRateAt(step: number, { type, base, warmup, total, stable = 0 }: Schedule): number {
  if (type === 'constant') return base
  if (step < warmup) return base * (step / Math.max(1, warmup))
  if (type === 'constant_with_warmup') return base
  if (type === 'warmup_stable_decay') {
    const decay = Math.max(1, total - warmup - stable)
    return base * Math.min(1, Math.max(0, (total - step) / decay))
  }
  const span = Math.max(1, total - warmup)
  if (type === 'linear') return base * Math.max(0, (total - step) / span)
  return base * Math.max(0, 0.5 * (1 + Math.cos((Math.PI * (step - warmup)) / span)))
}
