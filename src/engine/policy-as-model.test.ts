import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { golden, PEFT_ADAPTER } from '../../test/engine/written-model'
import { ModelError } from '../errors'
import { readLoraSpec } from './lora-file'
import { openModel } from './open-model'
import { openPolicyAsModel } from './policy-as-model'
import { type HostTensor, readSafetensors, writeSafetensors } from './safetensors'

const folder = mkdtempSync(join(tmpdir(), 'arbor-as-model-'))
afterAll(() => rmSync(folder, { recursive: true }))

const Q = 'model.layers.1.self_attn.q_proj.weight'

describe('a policy as a model', () => {
  it('the base holds its own bits', async () => {
    const [plain, own] = await Promise.all([openModel(golden('llama')), openPolicyAsModel(golden('llama'), null)])
    expect([...own.weights.names].sort()).toEqual([...plain.weights.names].sort())
    for (const name of own.weights.names) expect(own.weights.read(name)).toEqual(plain.weights.read(name))
    for (const { weights } of [plain, own]) weights.close()
  })

  it('an adapter is added to its weights, scaled by alpha / r, and to no others', async () => {
    const [plain, merged] = await Promise.all([openModel(golden('llama')), openPolicyAsModel(golden('llama'), PEFT_ADAPTER)])
    const adapter = readSafetensors(join(PEFT_ADAPTER, 'adapter_model.safetensors'))
    const [a, b] = ['A', 'B'].map((part) => adapter.read(`base_model.model.model.layers.1.self_attn.q_proj.lora_${part}.weight`))
    const [before, after] = [plain.weights.read(Q), merged.weights.read(Q)]
    const columns = merged.weights.shape(Q)[1]!
    for (const [row, column] of [
      [0, 0],
      [5, 17],
      [63, 63],
    ] as const) {
      let sum = 0
      for (let r = 0; r < 4; r++) sum += b![row * 4 + r]! * a![r * columns + column]!
      const at = row * columns + column
      expect(after[at]).toBe(Math.fround(before[at]! + (8 / 4) * sum))
      expect(after[at]).not.toBe(before[at])
    }
    const norm = 'model.layers.0.input_layernorm.weight'
    expect(merged.weights.read(norm)).toEqual(plain.weights.read(norm))
    adapter.close()
    for (const { weights } of [plain, merged]) weights.close()
  })

  it('says what is wrong with a folder that is none, and with an adapter of another model', async () => {
    await expect(openPolicyAsModel(golden('llama'), folder)).rejects.toThrow(/neither an adapter .* nor a model/)
    const other = copyOfAdapter('other', (name) => name.replace('layers.1.', 'layers.7.'))
    await expect(openPolicyAsModel(golden('llama'), other)).rejects.toThrow(/layers\.7\..* belongs to no weight of this model/)
    const { weights } = await openPolicyAsModel(golden('full-qwen2'), PEFT_ADAPTER)
    expect(() => weights.read(Q)).toThrow(ModelError) // half as wide
    weights.close()
  })
})

describe("kinds of peft's adapters", () => {
  const configured = (name: string, fields: object) => {
    const dir = copyOfAdapter(name, (tensor) => tensor)
    const path = join(dir, 'adapter_config.json')
    writeFileSync(path, JSON.stringify({ ...JSON.parse(readFileSync(path, 'utf8')), ...fields }))
    return dir
  }

  it('target_modules may be a pattern: the file tells what is meant', () => {
    const listed = readLoraSpec(PEFT_ADAPTER)
    for (const [i, pattern] of ['all-linear', '.*_proj', ['self_attn.q_proj', 'v_proj']].entries())
      expect([...readLoraSpec(configured(`pattern-${i}`, { target_modules: pattern })).targets].sort()).toEqual(
        [...listed.targets].sort(),
      )
  })

  it("rsLoRA's scale, alpha / √r, is said as a plain adapter's alpha", () => {
    expect(readLoraSpec(configured('rslora', { use_rslora: true })).alpha / 4).toBe(8 / Math.sqrt(4))
  })

  it('those that compute something else are refused by name', () => {
    expect(() => readLoraSpec(configured('bias', { bias: 'all' }))).toThrow(/bias "all" is not supported/)
    expect(() => readLoraSpec(configured('layers', { layers_to_transform: [1] }))).toThrow(/layers_to_transform is not supported/)
    expect(() => readLoraSpec(configured('pissa', { init_lora_weights: 'pissa_niter_4' }))).toThrow(/changed the base as well/)
    expect(() => readLoraSpec(configured('kind', { peft_type: 'IA3' }))).toThrow(/peft_type "IA3" is not supported/)
  })
})

/** peft's adapter with other tensor names. */
function copyOfAdapter(name: string, rename: (tensor: string) => string): string {
  const dir = join(folder, name)
  cpSync(PEFT_ADAPTER, dir, { recursive: true })
  const file = readSafetensors(join(PEFT_ADAPTER, 'adapter_model.safetensors'))
  const tensors = new Map<string, HostTensor>(
    file.names.map((tensor) => [rename(tensor), { shape: file.shape(tensor), data: file.read(tensor) }]),
  )
  file.close()
  writeSafetensors(join(dir, 'adapter_model.safetensors'), tensors)
  return dir
}
