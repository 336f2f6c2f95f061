// A server on GPUs: where none answers, on two emulated ones (test/emulator) that a stand-in of nvidia-smi tells of.

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { beforeAll, describe, expect, it } from 'vitest'
import { gpus } from '../../src/engine/ops/build-cuda'
import { fakeMachine } from '../../src/engine/ops/stub-library.fixture'
import type { StepRecord } from '../../src/protocol'
import { CUDA, cudaLibrary, gpuCount } from '../emulator/gpu'
import { compile, freshFolder, recordsOnDisk, runFolder, serve } from './tiny'

beforeAll(async () => {
  if (gpus().length > 0) return
  const { path } = await cudaLibrary()
  const row = 'emulated GPU, 580.65, 9.0, 4096, 4096'
  process.env['PATH'] = `${fakeMachine({ gpu: `${row}\n${row}` })}:${process.env['PATH']}`
  process.env['ARBOR_CUDA_LIBRARY'] = path
})

/** A compile on so many GPUs: its records, and what the run folder says of the machine. */
async function run(gpuNumber: number, options: Parameters<typeof compile>[1] = {}) {
  const storagePath = freshFolder()
  const server = await serve({ device: 'cuda', gpus: gpuNumber, storagePath })
  try {
    const { compiler } = await compile(server, options)
    const { jobId } = compiler.run!
    const environment = JSON.parse(readFileSync(join(runFolder(storagePath, jobId), 'environment.json'), 'utf8'))
    return { records: recordsOnDisk(storagePath, jobId), environment }
  } finally {
    await server.close()
  }
}

describe.skipIf(gpuCount < 2)(`training on ${CUDA}`, () => {
  it('a job on two GPUs: what it trains are the tokens and logprobs that were sampled, on one GPU the same', {
    timeout: 300_000,
  }, async () => {
    const two = await run(2, { numTrainSteps: 5 })
    expect(two.records.map(({ policy_version }) => policy_version)).toEqual([1, 2, 3, 4, 5])
    expect(JSON.stringify(two.environment)).toContain('2 × ')
    for (const { groups, logprob_gap_mean, grad_norm } of two.records) {
      expect(new Set(groups.flatMap(({ sources }) => sources))).toEqual(new Set(['id']))
      expect(logprob_gap_mean).toBeLessThan(1e-4) // products have the same bits in both; attention adds in another order
      expect(grad_norm).toBeGreaterThan(0)
    }
    const one = await run(1, { numTrainSteps: 1 })
    const sampled = ({ groups }: StepRecord) => groups.map(({ completions }) => completions)
    expect(sampled(two.records[0]!)).toEqual(sampled(one.records[0]!))
  })
})
