// One optimizer step of pretraining: all weights of a 1.5M Llama on 512 short documents that share their first 129 tokens.

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import type { StepConfig, TrainSequence } from '../src/engine/engine'
import { initialWeights } from '../src/engine/init-weights'
import { LocalEngine } from '../src/engine/local-engine'
import { modelConfig } from '../src/engine/model-config'
import { uniforms } from '../src/engine/random'
import { writeSafetensors } from '../src/engine/safetensors'
import { interleave, print } from './_report'

const CONFIG = {
  ...{ model_type: 'llama', vocab_size: 2048, hidden_size: 128, num_hidden_layers: 6, num_attention_heads: 4 },
  ...{
    num_key_value_heads: 2,
    intermediate_size: 416,
    max_position_embeddings: 512,
    rms_norm_eps: 1e-5,
    tie_word_embeddings: true,
  },
}
const STEP: StepConfig = {
  ...{ temperature: 1, learningRate: 3e-3, beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0.05, maxGradNorm: 1 },
}

function documents(count: number): TrainSequence[] {
  const random = uniforms(7, 0)
  const draw = (length: number) => Array.from({ length }, () => 3 + Math.floor(random() * (CONFIG.vocab_size - 3)))
  const common = draw(129)
  return Array.from({ length: count }, () => ({ prompt: [...common, ...draw(63)], completion: draw(37) }))
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      documents: { type: 'string', default: '512' },
      packs: { type: 'string', default: '' }, // pack sizes to compare; empty: the engine's own
      rounds: { type: 'string', default: '3' },
    },
  })
  const folder = mkdtempSync(join(tmpdir(), 'arbor-bench-'))
  writeFileSync(join(folder, 'config.json'), JSON.stringify(CONFIG))
  writeSafetensors(join(folder, 'model.safetensors'), initialWeights(modelConfig(CONFIG, 'bench'), 1))
  const engine = new LocalEngine()
  const info = await engine.load({ name: '1.5M', kind: 'folder', path: folder })
  await engine.openPolicy('all', { lora: null, seed: 0 })
  const sequences = documents(Number(values.documents))
  const tokens = sequences.reduce((sum, { completion }) => sum + completion.length, 0)
  const loss = { dLogprobs: new Float32Array(tokens).fill(-1 / tokens) }
  const note: Record<string, string> = {}
  const run = async (packTokens: number | null) => {
    const stats = await engine.trainStep('all', sequences, loss, { ...STEP, ...(packTokens && { packTokens }) })
    note[String(packTokens)] = `${stats.tokens} tokens in ${stats.packs} packs, ${Math.round(stats.tokens / stats.seconds)}/s`
    return stats.seconds
  }
  await run(null) // warm up
  const packs = values.packs === '' ? [null] : values.packs.split(',').map(Number)
  const rows = await interleave(
    Number(values.rounds),
    packs.map((pack) => ({ name: pack === null ? "the engine's packs" : `packs of ${pack}`, run: () => run(pack) })),
  )
  print(`pretrain-step: ${values.documents} documents, ${info.deviceDescription}`, rows, { note })
  await engine.close()
  rmSync(folder, { recursive: true })
}

void main()
