import { describeLocalEngine } from '../../test/engine/describe-local-engine'
import { gpus } from './ops/build-cuda'
import { openBackend } from './ops/open-backend'

describeLocalEngine('tfjs', () => openBackend('tfjs'))
for (const precision of ['f32', 'bf16'] as const)
  describeLocalEngine(`cpu, ${precision}`, () => openBackend('cpu', { precision }))
if (gpus().length > 0)
  for (const precision of ['f32', 'bf16'] as const)
    describeLocalEngine(`cuda, ${precision}`, () => openBackend('cuda', { precision }), { decodesApart: precision === 'bf16' })
