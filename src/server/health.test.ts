import { describe, expect, it } from 'vitest'
import type { EngineStatus } from '../engine/engine'
import { FakeEngine } from '../engine/fake-engine'
import { HealthSchema } from '../protocol'
import { testApp } from './fixture'

/** Says how it is only when it is told to, as an engine's thread does that is in the middle of a pass. */
class BusyEngine extends FakeEngine {
  asked = 0
  answer: (status: EngineStatus) => void = () => {}
  override status(): Promise<EngineStatus> {
    this.asked++
    return new Promise((resolve) => (this.answer = resolve))
  }
}

const work = { promptTokens: 7, sampledTokens: 5, trainedTokens: 3 }
const status = (running: number): EngineStatus => ({
  running,
  waiting: 1,
  cachedTokens: 0,
  busySeconds: 2.5,
  work,
  deviceMemory: { free: 3, total: 64 },
  policies: [],
  policiesAtOnce: 0,
})

describe('/health', () => {
  it('does not wait for a busy engine: it tells what was known last, and asks once', async () => {
    const engine = new BusyEngine({ script: () => [] })
    const app = await testApp({ engine })
    const queue = async () => ((await (await app.get('/health')).json()) as { queue: object }).queue
    expect(await queue()).toEqual({ running: 0, waiting: 0 })
    expect(await queue()).toEqual({ running: 0, waiting: 0 })
    expect(engine.asked).toBe(1)
    engine.answer(status(4))
    await new Promise((resolve) => setImmediate(resolve))
    expect(await queue()).toEqual({ running: 4, waiting: 1 })
    const { time, busy_seconds, work, memory } = HealthSchema.parse(await (await app.get('/health')).json())
    expect([busy_seconds, work]).toEqual([2.5, { prompt_tokens: 7, sampled_tokens: 5, trained_tokens: 3 }])
    expect(Date.now() / 1000 - time).toBeLessThan(10)
    expect(memory.device).toEqual({ free_bytes: 3, total_bytes: 64 })
    expect(memory.process_bytes).toBeGreaterThan(10_000_000)
    expect(memory.process_peak_bytes).toBeGreaterThanOrEqual(memory.process_bytes)
    expect(memory.machine_bytes).toBeGreaterThan(memory.machine_free_bytes)
  })

  it("tells an idle engine's own word", async () => {
    const app = await testApp({ engine: new FakeEngine({ script: () => [] }) })
    expect(await (await app.get('/health')).json()).toMatchObject({ status: 'ok', queue: { running: 0, waiting: 0 } })
  })
})
