import { describe, expect, it } from 'vitest'
import { CUDA, openGpu } from '../../test/emulator/gpu'
import { describeLocalEngine } from '../../test/engine/describe-local-engine'
import { bundledModel, DEFAULT_MODEL } from './bundled-models'
import { LocalEngine } from './local-engine'
import { openBackend } from './ops/open-backend'

describeLocalEngine('tfjs', () => openBackend('tfjs'))
for (const precision of ['f32', 'bf16'] as const)
  describeLocalEngine(`cpu, ${precision}`, () => openBackend('cpu', { precision }))
for (const precision of ['f32', 'bf16'] as const)
  describeLocalEngine(`${CUDA}, ${precision}`, () => openGpu(precision), { decodesApart: precision === 'bf16' })

// Heads that tensor cores take, which those of the tiny Llama above are too narrow for.
describe(`LocalEngine on ${CUDA}, bf16, ${DEFAULT_MODEL}`, () => {
  it('a prompt that is asked again gives the same bits, all of it cached but its last token', { timeout: 120_000 }, async () => {
    const engine = new LocalEngine({ backend: await openGpu('bf16'), kvCacheTokens: 1024 })
    await engine.load(bundledModel(DEFAULT_MODEL)!)
    const sampling = { temperature: 1, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1 }
    const prompt = Array.from({ length: 90 }, (_, i) => 300 + ((i * i) % 700))
    const ask = () => engine.generate({ policy: null, prompt, seeds: [3], maxNewTokens: 4, sampling, stopTokenIds: [] })
    const [[first], [again]] = [await ask(), await ask()]
    expect([first!.cachedTokens, again!.cachedTokens]).toEqual([0, 89])
    expect({ ...again, cachedTokens: 0 }).toEqual(first)
    await engine.close()
  })
})
