import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { context, DummyLM, Predict, type ProgressEvent, setProgressObserver } from '../program'
import { CandidateSearch, type SearchProgress } from './candidates'

let events: ProgressEvent[]
let before: ReturnType<typeof setProgressObserver>
beforeEach(() => {
  events = []
  before = setProgressObserver((event) => events.push(event))
})
afterEach(() => {
  setProgressObserver(before)
})

const program = (instructions: string) => {
  const made = new Predict('question -> answer')
  made.signature = made.signature.withInstructions(instructions)
  return made
}

describe('a search', () => {
  it('answers the best full score, the first of equal ones, and sorts all candidates', async () => {
    const search = new CandidateSearch<Predict>({ title: 'Test', total: 4 })
    const [a, b, c, d] = ['a', 'b', 'c', 'd'].map(program) as [Predict, Predict, Predict, Predict]
    const best = await search.run(async () => {
      search.add({ label: 'a', program: a, score: 40 })
      search.add({ label: 'b', program: b, score: 90, full: false })
      search.add({ label: 'c', program: c, score: 60 })
      search.add({ label: 'd', program: d, score: 60 })
      return null
    })
    expect(best).toBe(c)
    expect(best.candidatePrograms.map(({ label }) => label)).toEqual(['c', 'd', 'a'])
    expect(best.mbCandidatePrograms.map(({ label }) => label)).toEqual(['b'])
    expect([best.score, best.interrupted]).toEqual([60, false])
    expect(search.candidates.map((one) => one.best)).toEqual([40, 40, 60, 60])
  })

  it('reports every candidate as plain data, and its end', async () => {
    const search = new CandidateSearch<Predict>({ title: 'Test', total: 2 })
    await search.run(async () => {
      search.note('thinking')
      search.add({ label: 'a', program: program('Think.'), score: 0, subscores: [false], seed: 3 })
      return null
    })
    expect(events.map(({ kind, done, total }) => [kind, done, total])).toEqual([
      ['optimize:start', 0, 2],
      ['optimize:item', 0, 2],
      ['optimize:item', 1, 2],
      ['optimize:end', 1, 2],
    ])
    const { candidate } = events[2]!.payload as Extract<SearchProgress, { candidate: unknown }>
    expect(candidate).toMatchObject({ index: 0, label: 'a', score: 0, best: 0, full: true })
    expect(candidate.predictors).toEqual([{ name: 'self', instructions: 'Think.', demos: 0 }])
    expect(JSON.parse(JSON.stringify(candidate)), 'plain data').toEqual(candidate)
    expect(events[3]!.payload).toMatchObject({ status: 'succeeded', reason: null })
  })

  it('counts the calls inside it, also for a search around it', async () => {
    const lm = new DummyLM([{ answer: '1' }, { answer: '2' }, { answer: '3' }])
    const ask = () => new Predict('question -> answer').call({ question: 'q' })
    const outer = new CandidateSearch<Predict>({ title: 'Outer' })
    const inner = new CandidateSearch<Predict>({ title: 'Inner' })
    await context({ lm }, () =>
      outer.run(async () => {
        await ask()
        await inner.run(async () => {
          await ask()
          return program('inner')
        })
        await ask()
        return program('outer')
      }),
    )
    expect([outer.spent.lmCalls, inner.spent.lmCalls]).toEqual([3, 1])
  })

  it('keeps its result out of saved states and copies', async () => {
    const search = new CandidateSearch<Predict>({ title: 'Test' })
    const best = await search.run(async () => search.add({ label: 'a', program: program('a'), score: 50 }).program)
    expect(best.score).toBe(50)
    expect(Object.keys(best)).not.toContain('candidatePrograms')
    expect((best.deepcopy() as Partial<typeof best>).candidatePrograms).toBeUndefined()
  })

  it('ends with the best so far when it is interrupted', async () => {
    const stop = new AbortController()
    const search = new CandidateSearch<Predict>({ title: 'Test', signal: stop.signal })
    const best = await search.run(async () => {
      search.add({ label: 'a', program: program('a'), score: 50 })
      stop.abort()
      search.note('on with it')
      return program('never reached')
    })
    expect(best.signature.instructions).toBe('a')
    expect(best.interrupted).toBe(true)
    expect(events.at(-1)!.payload).toMatchObject({ status: 'interrupted' })
  })

  it('throws when it is interrupted before the first candidate, and when something breaks', async () => {
    const stop = new AbortController()
    stop.abort(new Error('enough'))
    const none = new CandidateSearch<Predict>({ title: 'Test', signal: stop.signal })
    await expect(none.run(async () => none.note('start') as never)).rejects.toThrow('enough')
    const broken = new CandidateSearch<Predict>({ title: 'Test' })
    const run = broken.run(async () => {
      broken.add({ label: 'a', program: program('a'), score: 50 })
      throw new Error('the server is gone')
    })
    await expect(run).rejects.toThrow('the server is gone')
    expect(broken.best!.label, 'nothing is lost').toBe('a')
    expect(events.at(-1)!.payload).toMatchObject({ status: 'failed', reason: 'the server is gone' })
  })
})
