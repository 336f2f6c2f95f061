import { afterEach, describe, expect, it, vi } from 'vitest'
import { BackendError, OutOfMemoryError } from '../../errors'
import { driverProblem, findCublasLt, isOlder } from './cuda-machine'
import { openCuda } from './open-cuda'
import { type Failure, type FakeMachine, fakeMachine, stubLibrary } from './stub-library.fixture'

const H200 = 'NVIDIA H200, 560.35.03, 9.0, 143771, 143000'

/** What openCuda says on such a machine, with a library that fails so or none at all. */
async function said(machine: FakeMachine, failure: Failure | null | 'no library' = null): Promise<string> {
  vi.stubEnv('PATH', fakeMachine(machine))
  if (failure !== 'no library') vi.stubEnv('ARBOR_CUDA_LIBRARY', stubLibraryOnce(failure))
  return openCuda({}).then(
    (backend) => {
      backend.close()
      return 'it opened'
    },
    (error: Error) => {
      expect(error).toBeInstanceOf(BackendError)
      return error.message
    },
  )
}

const path = process.env['PATH']!
const stubLibraryOnce = (failure: Failure | null) => {
  const own = process.env['PATH']
  vi.stubEnv('PATH', path) // the compiler is on the real one
  const library = stubLibrary(failure)
  vi.stubEnv('PATH', own)
  return library
}

afterEach(() => vi.unstubAllEnvs())

describe('opening a GPU', () => {
  it('works where the library computes', async () => {
    expect(await said({ gpu: H200 })).toBe('it opened')
  })

  it.each([
    [null, /^No NVIDIA GPU answers: there is no NVIDIA driver \(nvidia-smi was not found\)\. Use the device "cpu"/],
    [
      'error: Failed to initialize NVML: Driver/library version mismatch',
      /driver was updated while it ran .*: restart the machine/,
    ],
    ['error: Field "compute_cap" is not a valid field to query.', /the NVIDIA driver is too old: 525\.60 or newer is needed/],
    ['error: No devices were found', /nvidia-smi says: No devices were found/],
    ['Tesla V100, 560.35, 7.0, 16384, 16000', /Tesla V100 has compute capability 7\.0; 8\.0 or newer is needed/],
    [
      'NVIDIA A100, 470.82, 8.0, 40960, 40000',
      /driver 470\.82 is too old for CUDA 12\.4: 525\.60 or newer is needed\. Update the driver/,
    ],
  ])('of a machine that says %s names what is wrong', async (gpu, message) => {
    expect(await said({ gpu }, 'no library')).toMatch(message)
  })

  it('needs a compiler where no library is built, and one that is new enough for the driver', async () => {
    vi.stubEnv('ARBOR_HOME', '/nowhere')
    const without = "The CUDA library can't be built: "
    if (!(await import('./cuda-machine')).findNvcc())
      expect(await said({ gpu: H200 }, 'no library')).toMatch(
        `${without}nvcc was not found. Install the CUDA toolkit (12.4 or newer)`,
      )
    expect(await said({ gpu: H200, nvcc: '11.8' }, 'no library')).toMatch(`${without}nvcc is of CUDA 11.8, which is too old.`)
    expect(await said({ gpu: H200, nvcc: '13.0' }, 'no library')).toMatch(
      `${without}The NVIDIA driver 560.35.03 is too old for CUDA 13.0: 580.65 or newer is needed.`,
    )
  })

  it('with a named library that is not there says which', async () => {
    vi.stubEnv('ARBOR_CUDA_LIBRARY', '/nowhere/libarbor_cuda.so')
    expect(await said({ gpu: H200 }, 'no library')).toMatch(
      /ARBOR_CUDA_LIBRARY is \/nowhere\/libarbor_cuda\.so, and there is no such file/,
    )
  })

  it('with a library built for other GPUs says for which to build it', async () => {
    const text = 'no kernel image is available for execution on the device'
    const message = await said({ gpu: H200 }, { at: 'arbor_fill', text })
    expect(message).toMatch(
      /no kernel image.*\nThe CUDA library was built for other GPUs than this machine's \(NVIDIA H200: 9\.0\)\./,
    )
    expect(message).toMatch(/Unset it, and the library is built here; or build it with -DCMAKE_CUDA_ARCHITECTURES=90\.$/)
  })

  it('that is held by somebody else says by whom', async () => {
    const busy = { gpu: H200, processes: ['4711, python3, 61440', '4712, vllm, 70000'] }
    const message = await said(busy, { at: 'arbor_open', text: 'CUDA-capable device(s) is/are busy or unavailable' })
    expect(message).toMatch(
      /On the GPU now: python3 \(process 4711, 61440 MiB\), vllm \(process 4712, 70000 MiB\)\. End what is not needed/,
    )
  })

  it('that is full keeps the kind of its error', async () => {
    vi.stubEnv('PATH', fakeMachine({ gpu: H200 }))
    vi.stubEnv(
      'ARBOR_CUDA_LIBRARY',
      stubLibraryOnce({ at: 'arbor_alloc', text: 'no device memory for 0.00 GiB; 0.00 of 140.40 GiB are free' }),
    )
    const error = await openCuda({}).catch((one: unknown) => one)
    expect(error).toBeInstanceOf(OutOfMemoryError)
    expect((error as Error).message).toMatch(/are free\nThe driver names no other process on it\./)
  })

  it('on a driver that is too old for the library says what to update', async () => {
    const text = 'CUDA driver version is insufficient for CUDA runtime version'
    expect(await said({ gpu: H200 }, { at: 'arbor_open', text })).toMatch(
      /Update the NVIDIA driver \(525\.60 or newer for CUDA 12/,
    )
  })
})

describe('versions', () => {
  it('are compared part by part as numbers', () => {
    expect([isOlder('12.4', '12.10'), isOlder('12.10', '12.4'), isOlder('525.60.13', '525.60'), isOlder('9.0', '8.0')]).toEqual([
      true,
      false,
      false,
      false,
    ])
    expect(isOlder('unknown', '12.4')).toBe(false)
    expect(driverProblem('580.65.06', '13.1')).toBeNull()
  })

  it('cuBLASLt is where the environment says, or nowhere', () => {
    vi.stubEnv('ARBOR_CUBLASLT', __filename)
    expect(findCublasLt()).toBe(__filename)
    vi.stubEnv('ARBOR_CUBLASLT', '/nowhere/libcublasLt.so.12')
    expect(findCublasLt()).toBeNull()
  })
})
