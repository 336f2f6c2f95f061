// The engine that a server runs: in a thread of its own, or several, one for each GPU.

import { OptionError } from '../errors'
import type { Engine } from './engine'
import { EnginePool } from './engine-pool'
import { countGpus } from './ops/build-cuda'
import { WorkerEngine, type WorkerEngineOptions } from './worker-engine'

export interface EngineOptions extends Omit<WorkerEngineOptions, 'index'> {
  /** How many GPUs work together; default one device, whichever it is. */
  readonly gpus?: number | 'all'
  /** Hears what is built, and how several GPUs work together. */
  readonly log?: (line: string) => void
}

/**
 * Nothing is loaded yet.
 * @throws OptionError where there are fewer GPUs than asked for, BackendError where there is none
 */
export async function openEngine({ gpus = 1, log = () => {}, ...options }: EngineOptions): Promise<Engine> {
  if (gpus === 1) return new WorkerEngine(options)
  const device =
    options.device === 'auto' || options.device === undefined ? (process.env['ARBOR_DEVICE'] ?? 'auto') : options.device
  if (device !== 'cuda' && device !== 'auto')
    throw new OptionError(`${gpus} GPUs are asked for, and the device "${device}", which is none. Take the device "cuda".`)
  const there = await countGpus({ log }) // also builds the library, before several threads want it
  const count = gpus === 'all' ? there : gpus
  if (count > there)
    throw new OptionError(
      `${count} GPUs are asked for, and this process may use ${there}. Ask for ${there}, or for all; CUDA_VISIBLE_DEVICES says which GPUs a process sees.`,
    )
  roomForWaits(count)
  const engines = Array.from({ length: count }, (_, index) => new WorkerEngine({ ...options, device: 'cuda', index }))
  return count === 1 ? engines[0]! : new EnginePool(engines, { log })
}

/** Threads of libuv's pool by default, and how many an engine may hold: it waits for its device on one. */
const POOL_THREADS = 4
const WAITS = 2

/** The pool belongs to all threads of a process. It is made at its first use, and as large as the environment then says. */
export function roomForWaits(engines: number): void {
  process.env['UV_THREADPOOL_SIZE'] ??= String(POOL_THREADS + WAITS * engines)
}
