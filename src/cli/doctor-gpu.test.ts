import { mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { findNvcc } from '../engine/ops/cuda-machine'
import { fakeMachine, stubLibrary } from '../engine/ops/stub-library.fixture'
import { gpuFindings } from './doctor-gpu'

const H200 = 'NVIDIA H200, 560.35.03, 9.0, 143771, 71680'

async function lines(): Promise<string[]> {
  return (await gpuFindings()).map(
    ({ what, state, detail, hint }) => `${state} ${what}: ${detail}${hint === undefined ? '' : ` → ${hint}`}`,
  )
}

afterEach(() => vi.unstubAllEnvs())

describe('what doctor says of GPUs', () => {
  it('is one line where there is none', async () => {
    vi.stubEnv('PATH', fakeMachine({ gpu: null }))
    expect(await lines()).toEqual(['absent GPU: there is no NVIDIA driver (nvidia-smi was not found); the CPU does the work'])
  })

  it('names the GPU, who is on it, the compiler, cuBLASLt, and a library that is built and computes', async () => {
    const path = stubLibrary()
    writeFileSync(
      join(dirname(path), 'build.json'),
      JSON.stringify({ definitions: ['-DARBOR_CUDA=ON', '-DCMAKE_CUDA_ARCHITECTURES=90;100a'] }),
    )
    vi.stubEnv('PATH', fakeMachine({ gpu: H200, processes: ['4711, python3, 61440'], nvcc: '12.4' }))
    vi.stubEnv('ARBOR_CUDA_LIBRARY', path)
    vi.stubEnv('ARBOR_CUBLASLT', path)
    expect(await lines()).toEqual([
      'ok GPU: NVIDIA H200, compute capability 9.0, 70.0 of 140.4 GiB free, driver 560.35.03',
      'ok on the GPU: python3 (process 4711, 60.0 GiB)',
      'ok nvcc: CUDA 12.4 (nvcc)',
      `ok cuBLASLt: ${path}`,
      `ok CUDA library: built for compute capability 9.0, 10.0a, a GPU of the tests, frozen weights in f32 (${path})`,
    ])
  })

  it('looks for NCCL where there are several GPUs', async () => {
    const path = stubLibrary()
    vi.stubEnv('PATH', fakeMachine({ gpu: `${H200}'; echo '${H200}`, nvcc: '12.4' }))
    vi.stubEnv('ARBOR_CUDA_LIBRARY', path)
    vi.stubEnv('ARBOR_NCCL', path)
    expect(await lines()).toContain(`ok NCCL: ${path}`)
    vi.stubEnv('ARBOR_NCCL', '/no/such/library')
    expect(await lines()).toContain(
      "absent NCCL: not found (several GPUs then sum gradients in the host's memory, which takes longer) → pip install nvidia-nccl-cu13 (or -cu12); ARBOR_NCCL names a file elsewhere",
    )
  })

  it('says of a library for other GPUs what to do', async () => {
    const path = stubLibrary({ at: 'arbor_fill', text: 'no kernel image is available' })
    vi.stubEnv('PATH', fakeMachine({ gpu: H200, nvcc: '12.4' }))
    vi.stubEnv('ARBOR_CUDA_LIBRARY', path)
    expect((await lines()).at(-1)).toMatch(
      /^absent CUDA library: built for unknown GPUs, but: arbor_fill: no kernel image is available → The CUDA library was built for other GPUs/,
    )
  })

  it('says of a library that is not built whether it can be', async () => {
    vi.stubEnv('ARBOR_HOME', mkdtempSync(join(tmpdir(), 'arbor-home-')))
    vi.stubEnv('PATH', fakeMachine({ gpu: H200, nvcc: '12.6' }))
    expect((await lines()).at(-1)).toBe(
      'ok CUDA library: not built yet for compute capability 9.0: the first use builds it, in about two minutes',
    )
    vi.stubEnv('PATH', fakeMachine({ gpu: H200, nvcc: '11.8' }))
    const old = await lines()
    expect(old.find((line) => line.includes('nvcc:'))).toMatch(
      /^absent nvcc: CUDA 11\.8 \(nvcc\), too old → the CUDA toolkit, 12\.4 or newer/,
    )
    expect(old.at(-1)).toMatch(/^absent CUDA library: not built yet .* → nvcc is of CUDA 11\.8, which is too old/)
    vi.stubEnv('PATH', fakeMachine({ gpu: H200 }))
    if (findNvcc() === null) expect((await lines()).at(-1)).toMatch(/→ nvcc was not found\. Install the CUDA toolkit/)
  })

  it('says of a GPU that is too old that it is not used', async () => {
    vi.stubEnv('PATH', fakeMachine({ gpu: 'Tesla T4, 560.35, 7.5, 15360, 15000', nvcc: '12.4' }))
    expect((await lines()).at(-1)).toMatch(
      /^absent CUDA library: not used → Tesla T4 has compute capability 7\.5; 8\.0 or newer is needed/,
    )
  })
})
