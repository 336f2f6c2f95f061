// The number of threads is fixed when the library is loaded, so each number gets a process of its own.

import { execFileSync } from 'node:child_process'
import { describe, expect, it } from 'vitest'
import { goldenFolder } from '../golden/engine/open-golden'
import { compiledEngine, compiledEngineMissing } from './compiled'

/** Prints loss and gradient norm of three updates of all weights, then of an adapter, over 2,530 tokens, to the last digit, and some rollouts. */
const SCRIPT = `
const [engineFolder, model, precision] = process.argv.slice(1)
const { LocalEngine } = require(engineFolder + '/local-engine.js')
const tokens = (count, seed) => Array.from({ length: count }, (_, i) => 3 + ((i * 31 + seed * 17 + i * i * seed) % 100))
const rows = Array.from({ length: 120 }, (_, i) => ({ prompt: [...tokens(30, 1), ...tokens(10, i)], completion: tokens(16, i + 3) }))
const loss = { dLogprobs: new Float32Array(120 * 16).fill(-1 / (120 * 16)) }
const step = { temperature: 1, learningRate: 0.01, beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0.1, maxGradNorm: 1 }
const main = async () => {
  const engine = new LocalEngine({ device: 'cpu', precision })
  await engine.load({ name: 'tiny', kind: 'folder', path: model })
  await engine.openPolicy('all', { lora: null, seed: 0 })
  await engine.openPolicy('adapter', { lora: { rank: 4, alpha: 8, targets: ['q_proj', 'v_proj', 'down_proj'], dropout: 0 }, seed: 0 })
  for (const policy of ['all', 'adapter'])
    for (let i = 0; i < 3; i++) {
      const { objective, gradNorm, tokens } = await engine.trainStep(policy, rows, loss, step)
      console.log(objective, gradNorm, tokens)
    }
  const sampling = { temperature: 1, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1 }
  const request = { policy: 'adapter', prompt: rows[0].prompt, seeds: [1, 2, 3], maxNewTokens: 20, sampling, stopTokenIds: [] }
  for (const { logprobs } of await engine.generate(request)) console.log(logprobs.join())
  await engine.close()
}
main()
`

const missing = compiledEngineMissing()

describe.skipIf(missing !== null)(`threads${missing ? ` (skipped: ${missing})` : ''}`, () => {
  it.each(['f32', 'bf16'])(
    'one, two and seven threads train and sample the same bits in %s',
    { timeout: 120_000 },
    (precision) => {
      const train = (threads: number) =>
        execFileSync(process.execPath, ['-e', SCRIPT, compiledEngine(), goldenFolder('full-qwen2'), precision], {
          encoding: 'utf8',
          env: { ...process.env, ARBOR_THREADS: String(threads) },
        })
      const one = train(1)
      expect(one.trim().split('\n')).toHaveLength(3 + 3 + 3)
      expect(Number(one.split(' ')[2]!.split('\n')[0])).toBeGreaterThan(2048)
      expect([train(2), train(7)]).toEqual([one, one])
    },
  )
})
