import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { candidateScores, type ScoredCandidate } from './candidate-scores'
import { searchLine } from './live-search'
import type { MimeBundle } from './mime'
import { drawProgress } from './progress'
import { stillImage } from './still'

function candidate(index: number, score: number, more: Partial<ScoredCandidate> = {}): ScoredCandidate {
  const predictors = [{ name: 'predict', instructions: 'Answer <at once>.', demos: index }]
  const spent = { lmCalls: 600 * index, promptTokens: 80_000 * index, completionTokens: 500, seconds: 60 * index }
  return { index, label: `seed ${index}`, score, full: true, best: score, predictors, spent, ...more }
}

describe('candidateScores', () => {
  const mixed = [
    candidate(0, 40),
    candidate(1, 70, { full: false, best: 40 }),
    candidate(2, 55, { best: 55 }),
    candidate(3, 55, { best: 55 }),
  ]

  it('draws minibatches hollow, full evaluations filled, and the best so far as steps', () => {
    const { data, summary } = candidateScores(mixed)
    const [best, part, full, winner] = data
    expect(data.map(({ name }) => name)).toEqual(['best so far', 'on a minibatch', 'on all examples', 'best'])
    expect([best!.x, best!.y]).toEqual([
      [1, 3, 3, 4],
      [40, 40, 55, 55],
    ])
    expect([part!.x, part!.marker?.color]).toEqual([[2], 'rgba(0,0,0,0)'])
    expect(full!.x).toEqual([1, 3, 4])
    expect(winner!.x, 'the first of equal scores').toEqual([3])
    expect(stillImage(candidateScores(mixed))).toContain('fill="rgba(0,0,0,0)" stroke=')
    expect(summary).toBe('Candidate scores: 4 candidates, best 55.0 % (seed 2), the first 40.0 %')
  })

  it('says in the hover text what was tried, and takes no markup from a model', () => {
    const { data } = candidateScores(mixed)
    expect(data[1]!.text).toEqual(['<b>seed 1: 70.0 % (minibatch)</b><br>1 demo · Answer &#60;at once&#62;.'])
  })

  it('has room for the last candidate where some are left out', () => {
    const [, right] = candidateScores([candidate(0, 40), candidate(12, 50)]).layout.xaxis!.range!
    expect(right).toBeGreaterThan(13)
  })

  it('says so while there is nothing to draw', () => {
    expect(candidateScores([]).summary).toBe('Candidate scores: no candidate yet')
  })
})

describe('an optimizer while it searches', () => {
  const HOST = Symbol.for('arbor-nb.display-host')
  const shared = globalThis as unknown as Record<symbol, unknown>
  let outputs: Map<string, MimeBundle>
  const text = (part: string) => String([...outputs].find(([id]) => id.endsWith(part))?.[1]['text/plain'])
  const event = (phase: string, payload: object) =>
    drawProgress({ kind: `optimize:${phase}`, id: 'optimize-1', title: 'BootstrapRS', done: 0, total: 19, payload })

  beforeEach(() => {
    vi.useFakeTimers()
    outputs = new Map()
    const put = (bundle: MimeBundle, id: string) => outputs.set(id, bundle)
    shared[HOST] = { display: (bundle: MimeBundle, { displayId = '' }) => put(bundle, displayId), update: put }
  })
  afterEach(() => {
    vi.useRealTimers()
    delete shared[HOST]
  })

  it('shows a line and a chart, with what goes on inside it', () => {
    event('start', { activity: 'starting' })
    vi.advanceTimersByTime(300)
    expect(text('status')).toBe('BootstrapRS: candidate 0 · starting')
    for (const one of [candidate(0, 40), candidate(1, 62.5), candidate(2, 50, { best: 62.5 })]) event('item', { candidate: one })
    drawProgress({ kind: 'evaluate:item', id: 'evaluate-1', title: 'seed 3', done: 34, total: 100 })
    vi.advanceTimersByTime(300)
    expect(text('status')).toBe(
      'BootstrapRS: candidate 3/19 · best 62.5 % (seed 1) · 1.2 k calls · 160.5 k tokens · 11 min left · seed 3: 34/100',
    )
    expect(outputs.size, 'an evaluation inside has no bar of its own').toBe(2)
    event('end', { status: 'interrupted', reason: 'interrupted' })
    expect(text('status')).toContain('stopped: interrupted')
    expect(text('scores')).toContain('3 candidates, best 62.5 %')
  })

  it('shows a warning or two, and folds more', () => {
    const html = () => String([...outputs].find(([id]) => id.endsWith('status'))?.[1]['text/html'])
    event('start', { activity: 'starting' })
    for (const note of ['<one> run failed', 'another failed']) event('item', { note })
    vi.advanceTimersByTime(300)
    expect(html()).toContain('<div>&#60;one&#62; run failed</div>')
    expect(html()).not.toContain('<details>')
    event('item', { note: 'a third failed' })
    vi.advanceTimersByTime(300)
    expect(html()).toContain('<details><summary>3 warnings</summary>')
    for (let i = 3; i < 25; i++) event('item', { note: `warning ${i}` })
    event('end', { status: 'succeeded', reason: null })
    expect(text('status'), 'a terminal and a file have them all').toContain('a third failed')
    expect(html(), 'and counts the rest').toContain('25 warnings, the first 20 of them')
  })

  it('leaves what is not known out of the line', () => {
    const situation = { title: 'GEPA', total: 0, activity: '', ended: null }
    expect(searchLine([{ ...candidate(0, 40), spent: undefined } as never], situation)).toBe(
      'GEPA: candidate 1 · best 40.0 % (seed 0) · done',
    )
  })
})
