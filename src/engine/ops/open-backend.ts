// The one place that decides which device computes.

import { spawnSync } from 'node:child_process'
import { BackendError, OptionError } from '../../errors'
import { type BuildOptions, ensureNative } from './build-native'
import { openNative } from './native'
import type { Backend, Precision } from './ops'
import { openTfjs } from './tfjs'

export const DEVICES = ['auto', 'cpu', 'cuda', 'tfjs'] as const
export type Device = (typeof DEVICES)[number]

export const PRECISIONS = ['auto', 'f32', 'bf16'] as const

export interface BackendOptions extends BuildOptions {
  /** Of frozen weights. 'auto' (default) follows ARBOR_PRECISION where it is set, else takes bf16 where the CPU has AMX or AVX512-BF16, else f32. */
  readonly precision?: Precision | 'auto'
}

/**
 * Opens the device asked for; 'auto' follows ARBOR_DEVICE where it is set, else takes the CPU library, else TensorFlow.js with the reason in
 * `description`. A device that was named and isn't there is a BackendError that says what was tried.
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
      throw new BackendError(cudaReport(), { op: 'open' })
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
  try {
    return openNative(await ensureNative(options), options)
  } catch (error) {
    const reason = (error as Error).message.split('\n')[0]
    const backend = await openTfjs()
    return {
      device: backend.device,
      description: `${backend.description} (the native library is not available: ${reason})`,
      precision: backend.precision,
      ops: backend.ops,
      arena: (bytes) => backend.arena(bytes),
      upload: (to, data) => backend.upload(to, data),
      download: (from) => backend.download(from),
      capture: (run) => backend.capture(run),
      prepareWeight: (shape, data) => backend.prepareWeight(shape, data),
      close: () => backend.close(),
    }
  }
}

function cudaReport(): string {
  const asked = spawnSync('nvidia-smi', ['--query-gpu=name,driver_version', '--format=csv,noheader'], {
    encoding: 'utf8',
    timeout: 10_000,
  })
  const driver =
    asked.status === 0 ? `The driver answers: ${asked.stdout.trim().split('\n').join('; ')}.` : 'nvidia-smi does not answer.'
  return `The device "cuda" is not available: this version has no libarbor_cuda. ${driver} Use "cpu" or "auto".`
}
