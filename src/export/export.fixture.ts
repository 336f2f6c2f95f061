// What the tests of exports share: a run of the tiny chat model with two checkpoints, as a server leaves it.

import { join } from 'node:path'
import { LORA_TARGETS, type ModelSource } from '../engine/engine'
import { LocalEngine } from '../engine/local-engine'
import { RunFolder } from '../server/run-folder'

export const BASE: ModelSource = { name: 'tiny-chat', kind: 'folder', path: join(__dirname, '../../test/fixtures/tiny-chat') }
export const JOB = 'grpo:tiny-chat:calm-fox:20261122'
const STEP = { temperature: 1, learningRate: 0.05, beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0, maxGradNorm: 1 }
const ROWS = [{ prompt: [1, 50, 60, 70], completion: [80, 90, 100, 2] }]

/** A run under `storage`: the best checkpoint after two updates, the last after four. With `full`, all weights were trained. */
export async function trainedRun(storage: string, { full = false, job = JOB } = {}): Promise<RunFolder> {
  const engine = new LocalEngine({ device: 'cpu', precision: 'f32' })
  await engine.load(BASE)
  const lora = full ? null : { rank: 4, alpha: 8, targets: LORA_TARGETS, dropout: 0 }
  await engine.openPolicy('policy', { lora, seed: 1 })
  const folder = RunFolder.at(storage, job)
  folder.create({ config: { job_id: job, model: 'tiny-chat', base: 'tiny-chat', base_path: BASE.path }, environment: {} })
  const loss = { dLogprobs: new Float32Array(4).fill(-0.25) }
  const train = async (steps: number) => {
    for (let i = 0; i < steps; i++) await engine.trainStep('policy', ROWS, loss, full ? { ...STEP, learningRate: 0.002 } : STEP)
  }
  const save = (checkpoint_name: string, global_step: number, score: number) =>
    folder.saveCheckpoint({ checkpoint_name, global_step, requested: true, metadata: { score }, timestamp: global_step }, (dir) =>
      engine.savePolicy('policy', dir),
    )
  await train(2)
  await save('model_checkpoint_best', 2, 80)
  await train(2)
  await save('model_checkpoint_last', 4, 60)
  await engine.close()
  return folder
}
