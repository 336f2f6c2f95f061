// What is written here llama.cpp reads (test/peers/export.test.ts); the blocks' layouts are those that gguf-py's files hold.

import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { GGMLQuantizationType, gguf } from '@huggingface/gguf'
import { afterAll, describe, expect, it } from 'vitest'
import { adapterLogits, golden, largestGap, logitsOf, PEFT_ADAPTER } from '../../test/engine/written-model'
import { ModelError } from '../errors'
import { float32ToF16, halfValues } from './file-reader'
import { openGguf } from './gguf'
import { ENCODINGS, GGUF_TYPES, type GgufType } from './gguf-encode'
import { entry, writeGguf } from './gguf-writer'
import { openModel } from './open-model'
import { openPolicyAsModel } from './policy-as-model'
import { ropeFrequencies } from './rope'

const folder = mkdtempSync(join(tmpdir(), 'arbor-gguf-writer-'))
afterAll(() => rmSync(folder, { recursive: true }))
const vocabulary = { 'tokenizer.ggml.model': entry.text('gpt2'), 'tokenizer.ggml.eos_token_id': entry.count(2) }

async function written(model: 'llama' | 'qwen2', type: GgufType, adapter: string | null = null) {
  const path = join(folder, `${model}-${type}-${adapter ? 'merged' : 'base'}.gguf`)
  const open = await openPolicyAsModel(golden(model), adapter)
  writeGguf(path, { ...open, name: model, vocabulary }, type)
  open.weights.close()
  return { name: model, kind: 'gguf', path } as const
}

describe('a written GGUF file', () => {
  it.each(['llama', 'qwen2'] as const)('%s in f32 has the bits of the folder it was made from', async (model) => {
    const path = (await written(model, 'f32')).path
    const [file, base] = [await openGguf(path), await openPolicyAsModel(golden(model), null)]
    expect(file.weights.names.filter((name) => name !== 'rope_freqs.weight').sort()).toEqual([...base.weights.names].sort())
    for (const name of base.weights.names) {
      expect(file.weights.shape(name), name).toEqual(base.weights.shape(name))
      expect(file.weights.read(name), name).toEqual(base.weights.read(name))
    }
    for (const { weights } of [file, base]) weights.close()
  })

  it('keeps the rows of q and k of a llama as llama.cpp turns them: neighbours, not halves', async () => {
    const { path } = await written('llama', 'f32')
    const { tensorInfos, tensorDataOffset } = await gguf(path, { allowLocalFile: true })
    const info = tensorInfos.find(({ name }) => name === 'blk.0.attn_k.weight')!
    const raw = new Float32Array((await readRange(path, Number(tensorDataOffset + info.offset), 4 * 64 * 4)).buffer)
    const open = await openPolicyAsModel(golden('llama'), null)
    const plain = open.weights.read('model.layers.0.self_attn.k_proj.weight')
    const half = open.config.headDim / 2
    expect(raw.subarray(64, 128)).toEqual(plain.subarray(half * 64, (half + 1) * 64))
    expect(raw.subarray(128, 192)).toEqual(plain.subarray(64, 128))
    open.weights.close()
  })

  it.each([
    ['f32', 2e-5],
    ['f16', 2e-2],
    ['bf16', 0.15],
    ['q8_0', 0.4],
  ] as const)("with an adapter folded in, in %s, it computes the policy's logits", async (type, limit) => {
    // The base's logits lie more than 1 away (model-folder.test.ts), a wrong order of rows as far.
    const gap = largestGap(await logitsOf(await written('llama', type, PEFT_ADAPTER)), await adapterLogits())
    expect(gap).toBeLessThan(limit)
  })

  it('is removed when a weight turns out to be missing', async () => {
    const open = await openPolicyAsModel(golden('llama'), null)
    const path = join(folder, 'broken.gguf')
    const read = (name: string) => {
      if (name.includes('layers.1')) throw new ModelError('gone')
      return open.weights.read(name)
    }
    expect(() => writeGguf(path, { ...open, weights: { ...open.weights, read }, name: 'x', vocabulary }, 'f32')).toThrow(/gone/)
    expect(existsSync(path)).toBe(false)
    open.weights.close()
  })

  it('tells a rope that is scaled, as Llama 3 does it, by a table that is read back', async () => {
    const [folderModel, file] = await Promise.all([openModel(golden('llama')), openModel(await written('llama', 'f32'))])
    expect(folderModel.config.ropeScaling).toMatchObject({ rope_type: 'llama3' })
    const [wanted, got] = [folderModel, file].map(({ config }) => ropeFrequencies(config))
    expect(
      new Set(wanted!.map((value, i) => value / ropeFrequencies({ ...file.config, ropeScaling: null })[i]!)).size,
    ).toBeGreaterThan(1)
    for (const [i, value] of wanted!.entries()) expect(got![i]! / value).toBeCloseTo(1, 6)
    for (const { weights } of [folderModel, file]) weights.close()
  })

  it.each([
    ['linear', 4],
    ['default', 1],
  ])('a %s rope divides every frequency by %d', async (kind, factor) => {
    const open = await openPolicyAsModel(golden('qwen2'), null)
    const path = join(folder, `${kind}.gguf`)
    const config = { ...open.config, ropeScaling: { rope_type: kind, factor } }
    writeGguf(path, { ...open, config, name: 'x', vocabulary }, 'f32')
    open.weights.close()
    const { config: read, weights } = await openModel({ name: 'x', kind: 'gguf', path })
    weights.close()
    expect([...ropeFrequencies(read)]).toEqual([...ropeFrequencies(config)])
  })
})

describe('values as they are stored', () => {
  it('every half survives, and what lies between goes to the nearer one, ties to the even one', () => {
    const table = halfValues()
    const finite = Array.from({ length: 65536 }, (_, bits) => bits).filter((bits) => Number.isFinite(table[bits]!))
    const back = float32ToF16(Float32Array.from(finite, (bits) => table[bits]!))
    expect([...back].every((bits, i) => bits === finite[i])).toBe(true)
    const up = 1 + 2 ** -10
    const cases = [1 + 2 ** -11, up + 2 ** -11, 1 + 2 ** -11 + 2 ** -20, 2 ** -25, 3 * 2 ** -25, 65519, 65520, -Infinity]
    expect([...float32ToF16(Float32Array.from(cases))].map((bits) => table[bits])).toEqual([
      ...[1, 1 + 2 ** -9, up, 0, 2 ** -23, 65504, Infinity, -Infinity],
    ])
    expect(table[float32ToF16(Float32Array.of(Number.NaN))[0]!]).toBeNaN()
  })

  it('a block of q8_0 is its scale and 32 steps; zeros stay zeros', () => {
    const values = Float32Array.from({ length: 64 }, (_, i) => (i < 32 ? i - 16 : 0))
    const bytes = ENCODINGS.q8_0.encode(values)
    expect(bytes.length).toBe(68)
    expect(halfValues()[bytes[0]! | (bytes[1]! << 8)]).toBeCloseTo(16 / 127, 4)
    expect([...new Int8Array(bytes.buffer, 2, 32)].slice(0, 3)).toEqual([-127, -119, -111])
    expect([...bytes.subarray(34)].every((byte) => byte === 0)).toBe(true)
  })

  it('the types have the numbers of the format', () => {
    expect(GGUF_TYPES.map((type) => GGMLQuantizationType[ENCODINGS[type].id])).toEqual(['F32', 'F16', 'BF16', 'Q8_0'])
  })
})

async function readRange(path: string, offset: number, length: number): Promise<Uint8Array> {
  const { open } = await import('node:fs/promises')
  const file = await open(path)
  const bytes = new Uint8Array(length)
  await file.read(bytes, 0, length, offset)
  await file.close()
  return bytes
}
