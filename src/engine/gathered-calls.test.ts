import { setImmediate as turn } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { GatheredCalls } from './gathered-calls'

const turns = async (count: number) => {
  for (let i = 0; i < count; i++) await turn()
}

describe('GatheredCalls', () => {
  it('sends together what comes before the event loop is quiet, and what comes later by itself', async () => {
    const sent: number[][] = []
    const gathered = new GatheredCalls<number>((calls) => void sent.push([...calls]))
    for (const call of [1, 2, 3]) {
      gathered.add(call)
      await turn()
    }
    expect(sent).toEqual([])
    await turns(5)
    gathered.add(4)
    await turns(5)
    expect(sent).toEqual([[1, 2, 3], [4]])
  })

  it('sends at once when it is told to, and nothing twice', async () => {
    const sent: number[][] = []
    const gathered = new GatheredCalls<number>((calls) => void sent.push([...calls]))
    gathered.add(1)
    gathered.flush()
    gathered.flush()
    expect(sent).toEqual([[1]])
    await turns(5)
    expect(sent).toEqual([[1]])
  })

  it('lets a stream of calls that never pauses go on', async () => {
    const sent: number[] = []
    const gathered = new GatheredCalls<number>((calls) => void sent.push(calls.length))
    const started = performance.now()
    while (sent.length === 0 && performance.now() - started < 5000) {
      gathered.add(1)
      await turn()
    }
    expect(sent.length).toBe(1)
  })
})
