// The truth is gguf-py's dequantization and transformers' loading of the same files (test/golden/gguf/make.py).

import { createHash } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { ModelError } from '../errors'
import { openGguf } from './gguf'
import { openModel } from './open-model'
import type { WeightFile } from './weights'

const GOLDEN = join(__dirname, '../../test/golden/gguf')
const folder = mkdtempSync(join(tmpdir(), 'arbor-gguf-'))
afterAll(() => rmSync(folder, { recursive: true }))

type Records = Record<string, { shape: number[]; first: number[]; sha256: string }>
const golden = (name: string) => JSON.parse(readFileSync(join(GOLDEN, name), 'utf8'))

function expectBits(weights: WeightFile, records: Records): void {
  for (const [name, record] of Object.entries(records)) {
    const values = weights.read(name)
    expect(weights.shape(name), name).toEqual(record.shape)
    expect([...values.subarray(0, 4)], name).toEqual(record.first)
    expect(createHash('sha256').update(new Uint8Array(values.buffer)).digest('hex'), name).toBe(record.sha256)
  }
}

describe('gguf', () => {
  it.each([
    ['tiny-llama.gguf', 'llama', false], // F32, F16, BF16, Q8_0, Q4_0, Q4_1; q and k reordered
    ['tiny-qwen2.gguf', 'qwen2', true], // biases; q and k as they are
  ])('%s: every tensor has the bits and the name that transformers gives it', async (file, architecture, qkvBias) => {
    const { config, weights } = await openModel({ name: file, kind: 'gguf', path: join(GOLDEN, file) })
    const records: Records = golden('tensors.json')[file]
    expect([...weights.names].sort()).toEqual(Object.keys(records).sort())
    expectBits(weights, records)
    weights.close()
    expect(config).toMatchObject({
      ...{ architecture, qkvBias, hidden: 64, layers: 1, heads: 2, kvHeads: 1, headDim: 32, inner: 96, contextLength: 128 },
      ...{ ropeTheta: 10000, ropeScaling: null, tiedHead: true, bosTokenId: 1, eosTokenIds: [2] },
    })
    expect(config.normEps).toBeCloseTo(1e-5, 10)
  })

  it('a type that is not supported is named with its tensor and what is supported', async () => {
    const { weights } = await openGguf(join(GOLDEN, 'unsupported.gguf'))
    const read = () => weights.read('model.layers.0.mlp.up_proj.weight')
    expect(read).toThrow(ModelError)
    expect(read).toThrow(/"blk\.0\.ffn_up\.weight" has type Q5_0\. Supported: F32, F16, Q4_0, Q4_1, Q8_0, BF16\./)
    weights.close()
  })

  it('a file cut in its data or in its header is refused when opened', async () => {
    const whole = readFileSync(join(GOLDEN, 'tiny-llama.gguf'))
    const path = join(folder, 'cut.gguf')
    writeFileSync(path, whole.subarray(0, whole.length - 100))
    await expect(openGguf(path)).rejects.toThrow(new RegExp(`cut\\.gguf: .*cut short.* it has ${whole.length - 100}`))
    writeFileSync(path, whole.subarray(0, 700))
    await expect(openGguf(path)).rejects.toThrow(ModelError)
    writeFileSync(path, 'no model at all, only text that is longer than a header')
    await expect(openGguf(path)).rejects.toThrow(/cut\.gguf: not a whole GGUF file/)
    await expect(openGguf(join(folder, 'gone.gguf'))).rejects.toThrow(/gone\.gguf: cannot be opened \(ENOENT\)/)
  })
})
