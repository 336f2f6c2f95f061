// What the library's answers come to, without a GPU: a library of the tests says how far a group is.

import { describe, expect, it } from 'vitest'
import { BackendError } from '../../errors'
import { NativeGroup } from './native-group'
import { NativeTensor } from './native-tensor'

const BUSY = 1
const PLACE = { id: new Uint8Array(128), ranks: 2, rank: 1 }
const X = new NativeTensor('f32', [3, 2], 4096)

/** Answers `arbor_group_status` with what `status` says at the time; a download ends when the test says so. */
function library(status: () => number, limits = { joinSeconds: 0.05, sumSeconds: 0.05 }) {
  const called: string[] = []
  let arrive = () => {}
  const arrived = new Promise<void>((resolve) => (arrive = resolve))
  const call = (name: string, ...values: unknown[]): number => {
    called.push(name === 'arbor_group_sum' ? `${name} ${String(values[0])}` : name)
    if (name === 'arbor_group_leave') arrive() // what was under way is given up
    return name === 'arbor_group_status' ? status() : 0
  }
  const group = new NativeGroup({ call, download: () => arrived }, limits)
  return { group, called, arrive: () => arrive() }
}

/** Busy so many times, then well. */
const busyFor = (times: number) => () => (times-- > 0 ? BUSY : 0)

describe('a group of GPUs', () => {
  it('is joined when the library says that all are there', async () => {
    const { group, called } = library(busyFor(3))
    await group.join(PLACE)
    expect(group.joined).toBe(true)
    expect(called).toEqual(['arbor_group_join', ...Array(4).fill('arbor_group_status')])
  })

  it('sums all tensors in one call, and is through when what follows on the stream is', async () => {
    const { group, called, arrive } = library(busyFor(2))
    await group.join(PLACE)
    const y = new NativeTensor('f32', [5], 8192)
    let through = false
    const sum = group.sum([X, y]).then(() => (through = true))
    await new Promise((resolve) => setTimeout(resolve, 10))
    expect(through).toBe(false)
    arrive()
    await sum
    expect(called.filter((name) => name.startsWith('arbor_group_sum'))).toEqual(['arbor_group_sum 4096,6,8192,5'])
    await group.sum([])
  })

  it('is left when the others don’t come in time', async () => {
    const { group, called } = library(() => BUSY)
    await expect(group.join(PLACE)).rejects.toThrow('GPU 1 of 2 waited for the others for 0.05 s: another GPU failed or is gone.')
    expect([group.joined, called.at(-1)]).toEqual([false, 'arbor_group_leave'])
  })

  it('is left when a sum is not begun, or does not end, in time', async () => {
    let state = 0
    const { group, called } = library(() => state)
    await group.join(PLACE)
    await expect(group.sum([X])).rejects.toThrow('A sum over the GPUs did not end within 0.05 s: another GPU failed or is gone.')
    expect([group.joined, called.at(-1)]).toEqual([false, 'arbor_group_leave'])
    const other = library(() => state)
    await other.group.join(PLACE)
    state = BUSY
    await expect(other.group.sum([X])).rejects.toThrow('A sum over the GPUs was not begun for 0.05 s')
    expect(other.group.joined).toBe(false)
  })

  it('that is left while a sum waits, or while it forms, ends both in words', async () => {
    const long = { joinSeconds: 60, sumSeconds: 60 }
    const { group } = library(busyFor(0), long)
    await group.join(PLACE)
    const sum = expect(group.sum([X])).rejects.toThrow('A sum over the GPUs was given up: another GPU failed or is gone.')
    await new Promise((resolve) => setTimeout(resolve, 5))
    group.leave()
    await sum
    group.leave() // a second time is nothing
    const forming = library(() => BUSY, long)
    const join = expect(forming.group.join(PLACE)).rejects.toThrow(/waited for the others, and the group was given up/)
    forming.group.leave()
    await join
  })

  it('whose library reports an error passes it on, and is left', async () => {
    const error = new BackendError('arbor_group_status: NCCL: unhandled system error', { op: 'group_status' })
    const { group, called } = library(() => {
      throw error
    })
    await expect(group.join(PLACE)).rejects.toBe(error)
    expect([group.joined, called.at(-1)]).toEqual([false, 'arbor_group_leave'])
  })
})
