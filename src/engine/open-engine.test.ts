import { afterEach, describe, expect, it, vi } from 'vitest'
import { compiledEngineMissing } from '../../test/engine/compiled'
import type { Engine } from './engine'
import { EnginePool } from './engine-pool'
import { type EngineOptions, openEngine } from './open-engine'
import { fakeMachine, stubLibrary } from './ops/stub-library.fixture'
import { WorkerEngine } from './worker-engine'

const missing = compiledEngineMissing()

describe.skipIf(missing !== null)(`openEngine${missing ? ` (skipped: ${missing})` : ''}`, () => {
  const open: Engine[] = []
  const opened = async (options: EngineOptions) => {
    const engine = await openEngine(options)
    open.push(engine)
    return engine
  }
  const twoGpus = () => {
    vi.stubEnv('PATH', `${fakeMachine({ gpu: 'NVIDIA H200, 560.35.03, 9.0, 143771, 71680' })}:${process.env['PATH']}`)
    vi.stubEnv('ARBOR_CUDA_LIBRARY', stubLibrary())
  }
  afterEach(async () => {
    vi.unstubAllEnvs()
    await Promise.all(open.splice(0).map((engine) => engine.close()))
  })

  it('is one engine in a thread, unless several GPUs are asked for', async () => {
    expect(await opened({ device: 'cpu' })).toBeInstanceOf(WorkerEngine)
    expect(await opened({ gpus: 1 })).toBeInstanceOf(WorkerEngine)
  })

  it('is a pool of as many engines as GPUs are asked for, or all', async () => {
    twoGpus()
    expect(await opened({ device: 'cuda', gpus: 2 })).toBeInstanceOf(EnginePool)
    expect(await opened({ gpus: 'all' })).toBeInstanceOf(EnginePool)
    await expect(openEngine({ gpus: 3 })).rejects.toThrow(
      /3 GPUs are asked for, and this process may use 2\. Ask for 2, or for all/,
    )
  })

  it('says what is wrong with several of a device that is no GPU, or is not there', async () => {
    await expect(openEngine({ device: 'cpu', gpus: 2 })).rejects.toThrow(
      /2 GPUs are asked for, and the device "cpu", which is none/,
    )
    vi.stubEnv('ARBOR_DEVICE', 'tfjs')
    await expect(openEngine({ gpus: 'all' })).rejects.toThrow('the device "tfjs"')
    vi.stubEnv('PATH', fakeMachine({ gpu: null }))
    await expect(openEngine({ device: 'cuda', gpus: 2 })).rejects.toThrow(/No NVIDIA GPU answers/)
  })
})
