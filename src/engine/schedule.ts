// Learning rate schedules, the formulas of transformers' get_scheduler.

export const SCHEDULES = ['constant', 'constant_with_warmup', 'linear', 'cosine'] as const
export type ScheduleType = (typeof SCHEDULES)[number]

export interface Schedule {
  readonly type: ScheduleType
  /** The highest rate. */
  readonly base: number
  /** Steps from 0 up to `base`; not used by 'constant'. */
  readonly warmup: number
  /** Steps of the whole run; used by 'linear' and 'cosine'. */
  readonly total: number
}

/** The rate of update `step`, counted from 0. With a warm-up the first rate is 0, as in transformers. */
export function learningRateAt(step: number, { type, base, warmup, total }: Schedule): number {
  if (type === 'constant') return base
  if (step < warmup) return base * (step / Math.max(1, warmup))
  if (type === 'constant_with_warmup') return base
  const span = Math.max(1, total - warmup)
  if (type === 'linear') return base * Math.max(0, (total - step) / span)
  return base * Math.max(0, 0.5 * (1 + Math.cos((Math.PI * (step - warmup)) / span)))
}
