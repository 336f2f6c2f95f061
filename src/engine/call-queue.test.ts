import { setTimeout as sleep } from 'node:timers/promises'
import { expect, it } from 'vitest'
import { CallQueue } from './call-queue'

it('shared calls overlap; an exclusive one waits for those before it and holds up those after it', async () => {
  const queue = new CallQueue()
  const log: string[] = []
  const task = (name: string, ms: number) => async () => {
    log.push(`${name}+`)
    await sleep(ms)
    log.push(`${name}-`)
    return name
  }
  const results = await Promise.all([
    queue.shared(task('a', 20)),
    queue.shared(task('b', 1)),
    queue.exclusive(task('X', 5)),
    queue.exclusive(task('Y', 1)),
    queue.shared(task('c', 5)),
    queue.shared(task('d', 20)),
  ])
  expect(results).toEqual(['a', 'b', 'X', 'Y', 'c', 'd'])
  expect(log).toEqual(['a+', 'b+', 'b-', 'a-', 'X+', 'X-', 'Y+', 'Y-', 'c+', 'd+', 'c-', 'd-'])
})

it('a call that fails tells its caller and nobody else', async () => {
  const queue = new CallQueue()
  const fail = async () => {
    throw new Error('no')
  }
  const calls = [queue.shared(fail), queue.exclusive(fail), queue.shared(async () => 1), queue.exclusive(async () => 2)]
  expect((await Promise.allSettled(calls)).map(({ status }) => status)).toEqual([
    'rejected',
    'rejected',
    'fulfilled',
    'fulfilled',
  ])
})
