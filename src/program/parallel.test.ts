import { describe, expect, expectTypeOf, it } from 'vitest'
import { context, type ProgressEvent, setProgressObserver } from './context'
import { DummyLM } from './dummy-lm'
import { Example } from './example'
import { Module } from './module'
import { Parallel } from './parallel'
import { Predict } from './predict'

class Slow extends Module {
  running = 0
  most = 0
  async forward({ wait, fail = false }: { wait: number; fail?: boolean }) {
    this.most = Math.max(this.most, ++this.running)
    await new Promise((resolve) => setTimeout(resolve, wait))
    this.running--
    if (fail) throw new Error(`failed after ${wait}`)
    return wait
  }
}

describe('Parallel', () => {
  it('answers in the order of the calls, so many at a time', async () => {
    const slow = new Slow()
    const waits = [30, 1, 15, 2, 9]
    const answers = await new Parallel({ numThreads: 2 }).call(waits.map((wait) => [slow, { wait }] as const))
    expectTypeOf(answers).toEqualTypeOf<(number | null)[]>()
    expect(answers).toEqual(waits)
    expect(slow.most).toBe(2)
  })

  it('calls with the inputs of examples, with records, and with lists of arguments', async () => {
    const qa = new Predict('question -> answer')
    const lm = new DummyLM((messages) => ({ answer: /## question ## \]\]\n(.*)/.exec(messages.at(-1)!.content)![1]! }))
    const warnings: string[] = []
    const example = new Example({ question: 'a', answer: 'label' }).withInputs('question')
    const calls = [
      [qa, example],
      [qa, { question: 'b' }],
      [qa, [{ question: 'c' }, { trace: false }]],
    ] as const
    const settings = { lm, onWarning: (text: string) => void warnings.push(text) }
    const answers = await context(settings, () => new Parallel().call(calls))
    expect(answers.map((one) => one?.answer)).toEqual(['a', 'b', 'c'])
    expect(warnings).toEqual([])
  })

  it('goes on after failures up to the limit, and tells which they were', async () => {
    const slow = new Slow()
    const calls = [true, false, true].map((fail, i) => [slow, { wait: i, fail }] as const)
    const events: ProgressEvent[] = []
    const before = setProgressObserver((event) => void events.push(event))
    const parallel = new Parallel({ numThreads: 1, maxErrors: 3, displayProgress: true })
    const warnings: string[] = []
    const onWarning = (text: string) => warnings.push(text)
    expect(await context({ onWarning }, () => parallel.call(calls))).toEqual([null, 1, null])
    expect(warnings[0]).toBe('Parallel: call 0 failed, and its answer is null: Error: failed after 0')
    setProgressObserver(before)
    expect(parallel.failures.map(({ index, error }) => [index, error.message])).toEqual([
      [0, 'failed after 0'],
      [2, 'failed after 2'],
    ])
    expect(events.at(-1)).toMatchObject({ kind: 'parallel:end', done: 3, total: 3, note: '2 failed' })
    await expect(new Parallel({ numThreads: 1, maxErrors: 2 }).call(calls)).rejects.toThrow(
      'Execution cancelled: 2 of 3 calls failed (maxErrors is 2). The last: Error: failed after 2',
    )
  })

  it('ends when it is aborted', async () => {
    const stop = new AbortController()
    const calls = Array.from({ length: 50 }, () => [new Slow(), { wait: 5 }] as const)
    const running = context({ signal: stop.signal }, () => new Parallel({ numThreads: 2 }).call(calls))
    setTimeout(() => stop.abort(new Error('enough')), 12)
    await expect(running).rejects.toThrow('enough')
    expect(() => new Parallel({ numThreads: 0 })).toThrow(/numThreads/)
  })
})
