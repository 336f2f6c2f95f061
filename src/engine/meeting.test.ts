import { describe, expect, it } from 'vitest'
import { Meeting } from './meeting'

describe('a meeting', () => {
  it('gives each what is made of all, in their order, whoever comes first', async () => {
    const meeting = new Meeting<number, string>(3, (given) =>
      given.map((one, i) => `${given.join('+')} for ${i}, who brought ${one}`),
    )
    const answers = [2, 0, 1].map((member) => meeting.arrive(member, member * 10))
    expect(await Promise.all(answers)).toEqual([2, 0, 1].map((i) => `0+10+20 for ${i}, who brought ${10 * i}`))
  })

  it('waits for the last', async () => {
    const meeting = new Meeting<null, null>(2, (given) => given)
    let through = false
    const first = meeting.arrive(0, null).then(() => (through = true))
    await new Promise((resolve) => setTimeout(resolve, 5))
    expect(through).toBe(false)
    await meeting.arrive(1, null)
    expect(await first).toBe(true)
  })

  it('that somebody fails ends for those who wait and for those who come later, with his error', async () => {
    const error = new Error('out of memory')
    const meeting = new Meeting<null, null>(3, (given) => given)
    const waiting = expect(meeting.arrive(0, null)).rejects.toBe(error)
    meeting.fail(error)
    await waiting
    await expect(meeting.arrive(1, null)).rejects.toBe(error)
  })

  it('whose conclusion fails, fails for all', async () => {
    const error = new Error('the loss is NaN')
    const meeting = new Meeting<null, null>(2, () => Promise.reject(error))
    await Promise.all([0, 1].map((member) => expect(meeting.arrive(member, null)).rejects.toBe(error)))
  })
})
