// How the server is: what it serves, what its engine has done so far, what memory it takes.

import { freemem, totalmem } from 'node:os'
import { setTimeout } from 'node:timers/promises'
import type { Engine, EngineStatus } from '../engine/engine'
import type { Health } from '../protocol'
import type { Services } from './services'

/** The answer of /health. Two of them, and their times, give the speed between. */
export function healthSource(services: Services): () => Promise<Health> {
  const latest = latestStatus(services.engine)
  const { device, deviceDescription, dtype } = services.model
  const about = { model: services.modelNames[0]!, device, device_description: deviceDescription, precision: dtype }
  return async () => healthNow(about, await latest())
}

/** Of a server that has no model yet. */
export function healthWithoutModel(): Health {
  const about = { model: null, device: null, device_description: null, precision: null }
  return healthNow(about, { status: NOTHING_YET, time: Date.now() / 1000 })
}

function healthNow(
  about: Pick<Health, 'model' | 'device' | 'device_description' | 'precision'>,
  { status, time }: TimedStatus,
): Health {
  const { promptTokens, sampledTokens, trainedTokens } = status.work
  return {
    status: 'ok',
    ...about,
    queue: { running: status.running, waiting: status.waiting },
    time,
    busy_seconds: status.busySeconds,
    work: { prompt_tokens: promptTokens, sampled_tokens: sampledTokens, trained_tokens: trainedTokens },
    memory: memoryNow(status.deviceMemory),
  }
}

function memoryNow(device: EngineStatus['deviceMemory']): Health['memory'] {
  return {
    process_bytes: process.memoryUsage.rss(),
    process_peak_bytes: process.resourceUsage().maxRSS * 1024,
    device: device && { total_bytes: device.total, free_bytes: device.free },
    machine_bytes: totalmem(),
    machine_free_bytes: freemem(),
  }
}

/** Longer than this nobody waits for the engine's own word. */
const STATUS_WAIT_MS = 5
const NOTHING_YET: EngineStatus = {
  running: 0,
  waiting: 0,
  cachedTokens: 0,
  busySeconds: 0,
  work: { promptTokens: 0, sampledTokens: 0, trainedTokens: 0 },
  deviceMemory: null,
  policies: [],
  policiesAtOnce: 0,
}

interface TimedStatus {
  readonly status: EngineStatus
  /** Unix seconds at which the engine said so. */
  readonly time: number
}

/** The engine's status, or the one before: its thread hears a question only between two passes, and health must not wait for a pass. */
function latestStatus(engine: Engine): () => Promise<TimedStatus> {
  let latest: TimedStatus = { status: NOTHING_YET, time: Date.now() / 1000 }
  let asked: Promise<void> | null = null
  return async () => {
    asked ??= engine
      .status()
      .then((status) => void (latest = { status, time: Date.now() / 1000 }))
      .finally(() => (asked = null))
    await Promise.race([asked, setTimeout(STATUS_WAIT_MS, undefined, { ref: false })])
    return latest
  }
}
