import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { adapterLogits, golden, largestGap, logitsOf, PEFT_ADAPTER } from '../../test/engine/written-model'
import { type FolderOptions, writeModelFolder } from './model-folder'
import { openPolicyAsModel } from './policy-as-model'
import { readJson } from './whole-file'

const folder = mkdtempSync(join(tmpdir(), 'arbor-folder-'))
afterAll(() => rmSync(folder, { recursive: true }))

async function written(name: string, model: 'llama' | 'qwen2', options: Partial<FolderOptions>, adapter: string | null = null) {
  const dir = join(folder, name)
  const open = await openPolicyAsModel(golden(model), adapter)
  writeModelFolder(dir, open, { type: 'f32', baseConfig: readJson(join(golden(model).path, 'config.json')), ...options })
  open.weights.close()
  return { name, kind: 'folder', path: dir } as const
}

describe('a written model folder', () => {
  it('holds the policy: its logits are those of base and adapter', async () => {
    const merged = await written('merged', 'llama', {}, PEFT_ADAPTER)
    const [file, policy, base] = [await logitsOf(merged), await adapterLogits(), await logitsOf(golden('llama'))]
    expect(largestGap(file, policy)).toBeLessThan(2e-5) // f32's rounding; measured 1.7e-6
    expect(largestGap(file, base)).toBeGreaterThan(1)
  })

  it('may be cut into shards, which are read as one', async () => {
    const [whole, cut] = [await written('whole', 'qwen2', {}), await written('cut', 'qwen2', { shardBytes: 60_000 })]
    const shards = readdirSync(cut.path).filter((file) => file.endsWith('.safetensors'))
    expect(shards.length).toBeGreaterThan(3)
    expect(shards).toContain(`model-00001-of-0000${shards.length}.safetensors`)
    const index = readJson(join(cut.path, 'model.safetensors.index.json')) as { metadata: { total_size: number } }
    expect(index.metadata.total_size).toBeLessThan(readFileSync(join(whole.path, 'model.safetensors')).length)
    expect(largestGap(await logitsOf(cut), await logitsOf(whole))).toBe(0)
  })

  it.each([
    ['f16', 'float16', 2e-2],
    ['bf16', 'bfloat16', 0.15],
  ] as const)('in %s it is half as large, and its config says so', async (type, name, limit) => {
    const [small, large] = [await written(type, 'llama', { type }), await written(`${type}-f32`, 'llama', {})]
    const size = (model: { path: string }) => readFileSync(join(model.path, 'model.safetensors')).length
    expect(size(small)).toBeLessThan(size(large) * 0.55)
    expect(readJson(join(small.path, 'config.json'))['dtype']).toBe(name)
    expect(largestGap(await logitsOf(small), await logitsOf(large))).toBeLessThan(limit)
  })

  it('gets a config of its own where the base has none', async () => {
    const bare = await written('bare', 'qwen2', { baseConfig: null })
    expect(largestGap(await logitsOf(bare), await logitsOf(golden('qwen2')))).toBe(0)
  })
})
