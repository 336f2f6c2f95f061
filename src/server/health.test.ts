import { describe, expect, it } from 'vitest'
import type { EngineStatus } from '../engine/engine'
import { FakeEngine } from '../engine/fake-engine'
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

const status = (running: number): EngineStatus => ({ running, waiting: 1, cachedTokens: 0, busySeconds: 0, policies: [] })

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
  })

  it("tells an idle engine's own word", async () => {
    const app = await testApp({ engine: new FakeEngine({ script: () => [] }) })
    expect(await (await app.get('/health')).json()).toMatchObject({ status: 'ok', queue: { running: 0, waiting: 0 } })
  })
})
