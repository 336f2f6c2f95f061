// The one place that decides which device computes.

import { spawnSync } from 'node:child_process'
import { BackendError, OptionError } from '../../errors'
import { type BuildOptions, ensureNative } from './build-native'
import { openNative } from './native'
import type { Backend } from './ops'
import { openTfjs } from './tfjs'

export const DEVICES = ['auto', 'cpu', 'cuda', 'tfjs'] as const
export type Device = (typeof DEVICES)[number]

/**
 * Opens the device asked for; 'auto' follows ARBOR_DEVICE where it is set, else takes the CPU library, else TensorFlow.js with the reason in
 * `description`. A device that was named and isn't there is a BackendError that says what was tried.
 */
export async function openBackend(device: Device = 'auto', options: BuildOptions = {}): Promise<Backend> {
  const wish = device === 'auto' ? (process.env['ARBOR_DEVICE'] ?? 'auto') : device
  switch (wish) {
    case 'cpu':
      return openNative(await ensureNative(options))
    case 'tfjs':
      return openTfjs()
    case 'cuda':
      throw new BackendError(cudaReport(), { op: 'open' })
    case 'auto':
      return openAny(options)
    default:
      throw new OptionError(`ARBOR_DEVICE is "${wish}"; it takes ${DEVICES.join(', ')}.`)
  }
}

async function openAny(options: BuildOptions): Promise<Backend> {
  try {
    return openNative(await ensureNative(options))
  } catch (error) {
    const reason = (error as Error).message.split('\n')[0]
    const backend = await openTfjs()
    return {
      device: backend.device,
      description: `${backend.description} (the native library is not available: ${reason})`,
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
