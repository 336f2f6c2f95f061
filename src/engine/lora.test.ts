import { cpSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { openGolden } from '../../test/golden/engine/open-golden'
import { ModelError, OptionError } from '../errors'
import { LORA_TARGETS, type LoraSpec } from './engine'
import { LoraWeights } from './lora'
import { loadLora, saveLora } from './lora-file'
import type { Backend, Tensor } from './ops/ops'
import { openTfjs } from './ops/tfjs'
import { readSafetensors } from './safetensors'

const SPEC: LoraSpec = { rank: 3, alpha: 6, targets: LORA_TARGETS, dropout: 0.05 }
const { config, weights } = openGolden('llama')
weights.close()

describe('LoRA adapter', () => {
  let backend: Backend
  let dir: string
  beforeAll(async () => {
    backend = await openTfjs()
    dir = mkdtempSync(join(tmpdir(), 'arbor-lora-'))
  })
  afterAll(() => rmSync(dir, { recursive: true }))
  const fresh = (seed: number, spec = SPEC) => LoraWeights.fresh(backend, config, { spec, seed })
  const read = async (tensor: Tensor) => [...(await backend.download(tensor))]
  const valuesOf = async (lora: LoraWeights) =>
    Promise.all(lora.modules.map(async ({ name, a, b }) => [name, await read(a.param), await read(b.param)]))

  it('starts with A spread evenly within ±1/√in, B zero', async () => {
    for (const { a, b } of fresh(5).modules) {
      const values = await read(a.param)
      const bound = 1 / Math.sqrt(a.param.shape[1]!)
      expect(Math.max(...values.map(Math.abs))).toBeLessThanOrEqual(bound)
      // The mean of n such values lies within 4 of its standard deviations but for one seed in 16,000; this seed is fixed.
      const mean = values.reduce((sum, value) => sum + value, 0) / values.length
      expect(Math.abs(mean)).toBeLessThan((4 * bound) / Math.sqrt(3 * values.length))
      expect(new Set(values).size).toBeGreaterThan(values.length * 0.99)
      expect((await read(b.param)).every((value) => value === 0)).toBe(true)
    }
  })

  it('the seed and the place alone decide A', async () => {
    const all = await valuesOf(fresh(5))
    expect(await valuesOf(fresh(5))).toEqual(all)
    const few = await valuesOf(fresh(5, { ...SPEC, targets: ['v_proj', 'down_proj'] }))
    expect(few).toEqual(all.filter(([name]) => /v_proj|down_proj/.test(String(name))))
    const seeds = [6, 5 + 2 ** 32, -5].map((seed) => fresh(seed))
    for (const other of await Promise.all(seeds.map(valuesOf)))
      for (const [i, [, a]] of other.entries()) expect(a).not.toEqual(all[i]![1])
  })

  it('counts what it trains, and has no matrix where nothing is targeted', () => {
    expect(fresh(1).parameters).toBe(2 * 3 * (4 * 64 + 64 + 32 + 32 + 64 + 64 + 2 * 96 + 96 + 64 + 64))
    const few = fresh(1, { ...SPEC, targets: ['k_proj'] })
    expect(few.parameters).toBe(2 * 3 * (64 + 32))
    expect(few.matrix(0, 'down')).toBeNull()
    expect(few.matrix(1, 'qkv')!.parts).toEqual([64, 32, 32])
  })

  it('rejects what can not be meant', () => {
    expect(() => fresh(1, { ...SPEC, rank: 0 })).toThrow(/rank is 0/)
    expect(() => fresh(1, { ...SPEC, alpha: Number.NaN })).toThrow(OptionError)
    expect(() => fresh(1, { ...SPEC, targets: [] })).toThrow(/q_proj, k_proj/)
  })

  it("is saved under peft's names and shapes", async () => {
    await saveLora(fresh(2), join(dir, 'named'), { baseModel: 'some/model' })
    const ours = readSafetensors(join(dir, 'named', 'adapter_model.safetensors'))
    const peft = readSafetensors(join(__dirname, '../../test/golden/engine/llama/adapter/adapter_model.safetensors'))
    expect([...ours.names].sort()).toEqual([...peft.names].sort())
    for (const name of ours.names)
      expect(ours.shape(name)[name.includes('lora_A') ? 1 : 0]).toBe(peft.shape(name)[name.includes('lora_A') ? 1 : 0])
    ours.close()
    peft.close()
    const json = JSON.parse(readFileSync(join(dir, 'named', 'adapter_config.json'), 'utf8'))
    expect(json).toMatchObject({
      peft_type: 'LORA',
      r: 3,
      lora_alpha: 6,
      lora_dropout: 0.05,
      base_model_name_or_path: 'some/model',
    })
    expect(loadLora(backend, config, join(dir, 'named')).spec).toEqual(SPEC)
  })

  it('a checkpoint that is damaged, of two steps, or of another model is named', async () => {
    const good = join(dir, 'good')
    const lora = fresh(3)
    lora.step = 2
    await saveLora(lora, good)
    const copy = (name: string) => {
      cpSync(good, join(dir, name), { recursive: true })
      return join(dir, name)
    }
    const cut = copy('cut')
    truncateSync(join(cut, 'optimizer.safetensors'), 5000)
    expect(() => loadLora(backend, config, cut)).toThrow(ModelError)
    const mixed = copy('mixed')
    lora.step = 3
    await saveLora(lora, good)
    cpSync(join(good, 'optimizer.safetensors'), join(mixed, 'optimizer.safetensors'))
    expect(() => loadLora(backend, config, mixed)).toThrow(/of step 2, optimizer.safetensors of 3/)
    expect(() => loadLora(backend, { ...config, hidden: 32 }, good)).toThrow(/another model's/)
    const dora = copy('dora')
    writeFileSync(join(dora, 'adapter_config.json'), JSON.stringify({ peft_type: 'LORA', use_dora: true }))
    expect(() => loadLora(backend, config, dora)).toThrow(/use_dora is not supported/)
    expect(() => loadLora(backend, config, join(dir, 'nowhere'))).toThrow(/nowhere/)
  })
})
