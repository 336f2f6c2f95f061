import { CUDA, openGpu } from '../../test/emulator/gpu'
import { describeLocalEngine } from '../../test/engine/describe-local-engine'
import { openBackend } from './ops/open-backend'

describeLocalEngine('tfjs', () => openBackend('tfjs'))
for (const precision of ['f32', 'bf16'] as const)
  describeLocalEngine(`cpu, ${precision}`, () => openBackend('cpu', { precision }))
for (const precision of ['f32', 'bf16'] as const)
  describeLocalEngine(`${CUDA}, ${precision}`, () => openGpu(precision), { decodesApart: precision === 'bf16' })
