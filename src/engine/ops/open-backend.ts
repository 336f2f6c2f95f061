// The one place that decides which device computes.

import { BackendError, OptionError } from '../../errors'
import { cudaIsReady } from './build-cuda'
import { ensureNative } from './build-native'
import type { BuildOptions } from './build-tools'
import { openNative } from './native'
import { openCuda } from './open-cuda'
import type { Backend, Precision } from './ops'
import { openTfjs } from './tfjs'

export const DEVICES = ['auto', 'cpu', 'cuda', 'tfjs'] as const
export type Device = (typeof DEVICES)[number]

export const PRECISIONS = ['auto', 'f32', 'bf16'] as const

export interface BackendOptions extends BuildOptions {
  /** Of frozen weights. 'auto' (default) follows ARBOR_PRECISION where it is set, else takes bf16 where the CPU has AMX or AVX512-BF16, else f32. */
  readonly precision?: Precision | 'auto'
  /** Which of several GPUs; default 0. */
  readonly index?: number
}

/**
 * Opens the device asked for; 'auto' follows ARBOR_DEVICE where it is set, else takes a GPU that answers (and for which there is a library or a
 * compiler), else the CPU library, else TensorFlow.js with the reason in `description`. A device that was named and isn't there is a BackendError that says what was tried.
 */
export async function openBackend(device: Device = 'auto', options: BackendOptions = {}): Promise<Backend> {
  const precision = choosePrecision(options.precision)
  const wish = device === 'auto' ? (process.env['ARBOR_DEVICE'] ?? 'auto') : device
  switch (wish) {
    case 'cpu':
      return openNative(await ensureNative(options), { precision })
    case 'tfjs':
      if (precision === 'bf16')
        throw new BackendError('TensorFlow.js computes in f32: use precision "auto" or "f32".', { op: 'open' })
      return openTfjs()
    case 'cuda':
      return openCuda({ ...options, precision })
    case 'auto':
      return openAny({ ...options, precision })
    default:
      throw new OptionError(`ARBOR_DEVICE is "${wish}"; it takes ${DEVICES.join(', ')}.`)
  }
}

function choosePrecision(asked: Precision | 'auto' = 'auto'): Precision | 'auto' {
  const wish = asked === 'auto' ? (process.env['ARBOR_PRECISION'] ?? 'auto') : asked
  const found = PRECISIONS.find((one) => one === wish)
  if (found === undefined) throw new OptionError(`The precision is "${wish}"; it is one of ${PRECISIONS.join(', ')}.`)
  return found
}

async function openAny(options: BackendOptions): Promise<Backend> {
  const { precision = 'auto' } = options
  const reasons: string[] = []
  const attempt = async (open: () => Promise<Backend>): Promise<Backend | null> => {
    try {
      return await open()
    } catch (error) {
      reasons.push((error as Error).message.split('\n')[0]!)
      return null
    }
  }
  if (cudaIsReady()) {
    const backend = await attempt(() => openCuda(options))
    if (backend) return backend
    options.log?.(`The GPU is not used: ${reasons.at(-1)}`)
  }
  const backend = await attempt(async () => openNative(await ensureNative(options), { precision }))
  return backend ?? described(await openTfjs(), (text) => `${text} (the native library is not available: ${reasons.join('; ')})`)
}

/** The same backend under another description. */
function described(backend: Backend, text: (description: string) => string): Backend {
  return {
    device: backend.device,
    description: text(backend.description),
    precision: backend.precision,
    activations: backend.activations,
    ops: backend.ops,
    arena: (bytes) => backend.arena(bytes),
    upload: (to, data) => backend.upload(to, data),
    download: (from, into) => backend.download(from, into),
    fetch: (from, into) => backend.fetch(from, into),
    capture: (run) => backend.capture(run),
    prepareWeight: (shape, data, use) => backend.prepareWeight(shape, data, use),
    memory: () => backend.memory(),
    group: backend.group,
    close: () => backend.close(),
  }
}
