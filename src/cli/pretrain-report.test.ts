import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { makeRecipe } from '../pretrain/recipe'
import { type PretrainStep, RunFolder } from '../pretrain/run-folder'
import { pretrainReporter, progressLine } from './pretrain-report'

const recipe = makeRecipe({ size: '1.5M' })
const step = (number: number, seconds: number): PretrainStep => ({
  ...{ step: number, loss: 0.5, learningRate: 3e-3, gradNorm: 1, tokens: 40_000, tokensUnshared: 110_000, trainedTokens: 18_000 },
  seconds,
})
const out = mkdtempSync(join(tmpdir(), 'arbor-report-'))
afterAll(() => rmSync(out, { recursive: true }))

function stream(isTTY: boolean) {
  const written: string[] = []
  return { written, out: { isTTY, write: (text: string) => written.push(text) } as unknown as NodeJS.WriteStream }
}

describe('how a pretraining run shows itself', () => {
  it('tells step, loss, pace and the time left, from the mean of the latest steps', () => {
    expect(progressLine([step(599, 4), step(600, 6)], recipe)).toBe('step 600/1200  loss 0.5000  22,000 tokens/s  left 50 min')
    expect(progressLine([step(1, 10)], recipe)).toMatch(/left 3 h 20 min$/)
    expect(progressLine([{ ...step(1199, 10), heldOutLoss: 0.25 }], recipe)).toMatch(/held-out 0\.2500 .* left 10 s$/)
  })

  it('draws one line again on a terminal, and is quiet elsewhere: the first step, one each half minute, the last', () => {
    const [terminal, file] = [stream(true), stream(false)]
    for (const { out: to } of [terminal, file]) {
      const report = pretrainReporter(new RunFolder(out), recipe, to)
      for (const number of [1, 2, 3, 1200]) report.onStep(step(number, 1))
    }
    expect(terminal.written).toHaveLength(4)
    for (const text of terminal.written) expect(text.startsWith('\r')).toBe(true)
    expect(file.written.map((text) => text.split(' ')[1])).toEqual(['1/1200', '1200/1200'])
  })

  it('writes a page and a picture of the loss that need nothing else', () => {
    pretrainReporter(new RunFolder(out), recipe, stream(false).out).onCheckpoint([
      step(1, 1),
      { ...step(2, 1), heldOutLoss: 0.4 },
    ])
    const page = readFileSync(join(out, 'loss.html'), 'utf8')
    expect(page).toContain('<td>0.4000</td>')
    expect(page).not.toMatch(/src="http|href="http|<script/)
    expect(readFileSync(join(out, 'loss.svg'), 'utf8')).toMatch(/^<svg /)
  })
})
