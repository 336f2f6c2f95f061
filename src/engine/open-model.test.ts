import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { openModel } from './open-model'
import { writeSafetensors } from './safetensors'

const folder = mkdtempSync(join(tmpdir(), 'arbor-open-'))
afterAll(() => rmSync(folder, { recursive: true }))

const source = { name: 'm', kind: 'folder', path: folder } as const
const CONFIG = {
  model_type: 'qwen2',
  vocab_size: 8,
  hidden_size: 4,
  num_hidden_layers: 1,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  intermediate_size: 6,
  max_position_embeddings: 32,
  eos_token_id: 3,
}

describe('openModel of a folder', () => {
  it('reads config.json, the further ends of text of generation_config.json, and the weights', async () => {
    writeFileSync(join(folder, 'config.json'), JSON.stringify(CONFIG))
    writeFileSync(join(folder, 'generation_config.json'), JSON.stringify({ eos_token_id: [5, 3] }))
    writeSafetensors(join(folder, 'model.safetensors'), new Map([['x', { shape: [1], data: Float32Array.of(2) }]]))
    const { config, weights } = await openModel(source)
    expect(config).toMatchObject({ architecture: 'qwen2', qkvBias: true, headDim: 2, eosTokenIds: [3, 5] })
    expect(weights.read('x')).toEqual(Float32Array.of(2))
    weights.close()
    expect(() => weights.read('x')).toThrow(/read after close/)
  })

  it('a missing or damaged file is named', async () => {
    rmSync(join(folder, 'model.safetensors'))
    await expect(openModel(source)).rejects.toThrow(/model\.safetensors: cannot be opened \(ENOENT\)/)
    writeFileSync(join(folder, 'config.json'), JSON.stringify({ ...CONFIG, model_type: 'mamba' }))
    await expect(openModel(source)).rejects.toThrow(/config\.json: model_type "mamba" is not supported\. Supported: llama, qwen2/)
    writeFileSync(join(folder, 'config.json'), '{')
    await expect(openModel(source)).rejects.toThrow(/config\.json: not JSON/)
    rmSync(join(folder, 'config.json'))
    await expect(openModel(source)).rejects.toThrow(/config\.json: missing\./)
  })
})
