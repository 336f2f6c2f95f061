// The number of threads is fixed when the library is loaded, so each number gets a process of its own.

import { execFileSync } from 'node:child_process'
import { describe, expect, it } from 'vitest'
import { goldenFolder } from '../golden/engine/open-golden'
import { compiledEngine, compiledEngineMissing } from './compiled'

/** Prints loss and gradient norm of three updates of all weights over 2,530 tokens, in full precision. */
const SCRIPT = `
const [engineFolder, model] = process.argv.slice(1)
const { LocalEngine } = require(engineFolder + '/local-engine.js')
const tokens = (count, seed) => Array.from({ length: count }, (_, i) => 3 + ((i * 31 + seed * 17 + i * i * seed) % 100))
const rows = Array.from({ length: 120 }, (_, i) => ({ prompt: [...tokens(30, 1), ...tokens(10, i)], completion: tokens(16, i + 3) }))
const loss = { dLogprobs: new Float32Array(120 * 16).fill(-1 / (120 * 16)) }
const step = { temperature: 1, learningRate: 0.01, beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0.1, maxGradNorm: 1 }
const main = async () => {
  const engine = new LocalEngine({ device: 'cpu' })
  await engine.load({ name: 'tiny', kind: 'folder', path: model })
  await engine.openPolicy('all', { lora: null, seed: 0 })
  for (let i = 0; i < 3; i++) {
    const { objective, gradNorm, tokens } = await engine.trainStep('all', rows, loss, step)
    console.log(objective, gradNorm, tokens)
  }
  await engine.close()
}
main()
`

const missing = compiledEngineMissing()

describe.skipIf(missing !== null)(`threads${missing ? ` (skipped: ${missing})` : ''}`, () => {
  it('one, two and seven threads train all weights to the same bits', { timeout: 120_000 }, () => {
    const train = (threads: number) =>
      execFileSync(process.execPath, ['-e', SCRIPT, compiledEngine(), goldenFolder('full-qwen2')], {
        encoding: 'utf8',
        env: { ...process.env, ARBOR_THREADS: String(threads) },
      })
    const one = train(1)
    expect(one.trim().split('\n')).toHaveLength(3)
    expect(Number(one.split(' ')[2]!.split('\n')[0])).toBeGreaterThan(2048)
    expect([train(2), train(7)]).toEqual([one, one])
  })
})
