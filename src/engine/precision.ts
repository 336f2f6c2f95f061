// Which precision frozen weights are kept in, when nobody asks for one.

import type { ModelConfig } from './model-config'
import type { Precision } from './ops/ops'

export const PRECISION_WISHES = ['auto', 'f32', 'bf16'] as const
export type PrecisionWish = Precision | 'auto'

/** Models narrower than this are computed in f32. None is so far: no width is known below which f32 is the faster one. */
const LEAST_BF16_HIDDEN = 0

/** What to ask of a device: a wish, or $ARBOR_PRECISION, stands; 'auto' leaves it to the device, except for models that f32 suits better everywhere. */
export function precisionFor({ hidden }: ModelConfig, wish: PrecisionWish, leastBf16Hidden = LEAST_BF16_HIDDEN): PrecisionWish {
  const asked = wish === 'auto' ? (process.env['ARBOR_PRECISION'] ?? 'auto') : wish
  return asked === 'auto' && hidden < leastBf16Hidden ? 'f32' : wish
}
