// The whole server on a tiny real model (random weights, TensorFlow.js): what was sampled is what is trained, and a run that was
// interrupted and resumed ends with the very bits of one that was not.

import { mkdtempSync, readFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { LocalEngine } from '../engine/local-engine'
import type { GRPOStatus } from '../protocol'
import { TRAINER_CONFIG } from './fixture'
import { type RunningServer, startServer } from './main'
import { RunFolder } from './run-folder'

const model = join(__dirname, '../../test/golden/gguf/tiny-llama.gguf')
const config = { ...TRAINER_CONFIG, learning_rate: 0.01, warmup_steps: 2, lr_scheduler_type: 'linear', max_steps: 5, seed: 3 }
const trainer_config = { ...config, beta: 0.05, groups_per_step: 2, mask_truncated_completions: false }

const servers: RunningServer[] = []

async function start(storage: string): Promise<RunningServer> {
  const server = await startServer({ model, port: 0, storage, version: '0.0.0', engine: new LocalEngine({ device: 'tfjs' }) })
  servers.push(server)
  return server
}

async function post<T = GRPOStatus>(server: RunningServer, path: string, body: object): Promise<T> {
  const response = await fetch(server.baseUrl + path, { method: 'POST', body: JSON.stringify(body) })
  if (!response.ok) throw new Error(await response.text())
  return (await response.json()) as T
}

/** Samples and posts steps `from` to `to`, seeds and questions following from the step's number. */
async function run(server: RunningServer, job: GRPOStatus, [from, to]: readonly [number, number]): Promise<void> {
  const { job_id } = job
  let pending = job.pending_batch_ids
  for (let step = from; step <= to; step++) {
    const batch = []
    for (const seed of [step * 100, step * 100 + 50]) {
      const messages = [{ role: 'user', content: `question ${seed}` }]
      const body = { model: job_id, messages, n: 4, seed, max_tokens: 8 }
      const answer = await post<{ id: string; choices: { message: { content: string } }[] }>(server, 'chat/completions', body)
      batch.push(
        answer.choices.map(({ message }, i) => {
          const completion = { role: 'assistant', content: message.content }
          return { messages, completion, reward: message.content.length % 3, completion_id: `${answer.id}#${i}` }
        }),
      )
    }
    pending = (await post(server, 'fine_tuning/grpo/step', { job_id, model: job_id, batch_id: pending[0], batch }))
      .pending_batch_ids
  }
}

function weights(status: GRPOStatus, file: string): string[] {
  const { checkpoint_dir } = status.checkpoints['checkpoint_final']!
  return [file, 'optimizer.safetensors'].map((name) => readFileSync(join(checkpoint_dir, name)).toString('base64'))
}

describe('the server on a model', { timeout: 60_000 }, () => {
  afterAll(() => Promise.all(servers.map((server) => server.close())))

  it.each([
    ['an adapter', config.lora_config, 'adapter_model.safetensors'],
    ['all weights', null, 'model.safetensors'],
  ])('trains %s on the tokens that it sampled, and resumes as if nothing had been', async (_, lora_config, file) => {
    const storage = mkdtempSync(join(tmpdir(), 'arbor-main-'))
    const whole = await start(storage)
    const request = { model, trainer_config: { ...trainer_config, lora_config } }
    const first = await post(whole, 'fine_tuning/grpo/initialize', request)
    await run(whole, first, [1, 4])
    const uninterrupted = await post(whole, 'fine_tuning/grpo/terminate', { job_id: first.job_id })
    const records = RunFolder.at(storage, first.job_id).steps()
    expect(records.map((record) => record.rows_trained)).toEqual([8, 8, 8, 8])
    for (const record of records) expect(record.logprob_gap_max!).toBeLessThan(1e-3)
    expect(records[3]!.kl!).toBeGreaterThan(0)
    expect(records[0]!.tokens).toBeLessThan(records[0]!.tokens_unshared)

    const cut = await start(storage)
    const second = await post(cut, 'fine_tuning/grpo/initialize', request)
    await run(cut, second, [1, 2])
    await post(cut, 'fine_tuning/grpo/checkpoint', { job_id: second.job_id, checkpoint_name: 'half' })
    await cut.close()
    const resumed = await start(storage)
    const again = await post(resumed, 'fine_tuning/grpo/initialize', { ...request, resume_from: second.job_id })
    await run(resumed, again, [3, 4])
    const interrupted = await post(resumed, 'fine_tuning/grpo/terminate', { job_id: second.job_id })

    expect(weights(interrupted, file)).toEqual(weights(uninterrupted, file))
    const plain = (id: string) =>
      RunFolder.at(storage, id)
        .steps()
        .map(({ reward, loss, grad_norm, learning_rate, groups }) => ({ reward, loss, grad_norm, learning_rate, groups }))
    expect(plain(second.job_id)).toEqual(plain(first.job_id))
  })
})
