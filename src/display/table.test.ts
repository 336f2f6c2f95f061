import { describe, expect, it } from 'vitest'
import { diagnose } from './diagnosis'
import { frame } from './frame'
import { DISPLAY, type Displayable } from './mime'
import { stepRecord, stepRecords } from './records.fixture'
import { rolloutTable, table } from './table'

const html = (value: Displayable) => String(value[DISPLAY]()['text/html'])
const plain = (value: Displayable) => String(value[DISPLAY]()['text/plain'])

describe('tables', () => {
  it('list rollouts best first, the group with most spread first, everything escaped', () => {
    const page = html(rolloutTable(stepRecord(2)))
    expect(page).not.toContain('<script>')
    expect(page).not.toContain('<b>France')
    expect(page.indexOf('What is 2 + 3?')).toBeLessThan(page.indexOf('France'))
    expect([...page.matchAll(/([+−]\d\.\d\d)<\/span>/g)].map((match) => match[1]).slice(0, 4)).toEqual([
      '+1.00',
      '+0.00',
      '+0.00',
      '−1.00',
    ])
  })

  it('say how many groups they leave out', () => {
    expect(html(rolloutTable(stepRecord(1), { groups: 1 }))).toContain('1 more groups')
  })

  it('show any rows, numbers to the right, long text cut', () => {
    const rows = [
      { q: '<i>a</i>', score: 0.123456 },
      { q: 'b'.repeat(300), score: -2 },
    ]
    expect(html(table(rows))).toContain('<td style="text-align:right">0.1235</td>')
    expect(html(table(rows))).not.toContain('<i>')
    expect(html(table(rows))).toContain(`${'b'.repeat(199)}…`)
    expect(plain(table([{ a: 1, b: 'x' }]))).toBe('a  b\n1  x')
    expect(html(table([]))).toContain('<table>')
  })

  it('become a danfojs frame', async () => {
    const data = await frame([
      { q: 'a', n: 1 },
      { q: 'b', n: 3 },
    ])
    expect(data.shape).toEqual([2, 2])
    expect(data.column('n').mean()).toBe(2)
  }, 60_000)
})

describe('diagnosis', () => {
  const first = (records: Parameters<typeof diagnose>[0]) => diagnose(records)[0]?.text

  it('explains a loss of zero', () => {
    expect(
      diagnose([stepRecord(1)])
        .map(({ text }) => text)
        .join(),
    ).toContain('A loss near 0 is expected')
  })

  it('warns of groups without spread, with their share', () => {
    expect(first(stepRecords(3).map((record) => ({ ...record, frac_reward_zero_std: 0.62 })))).toMatch(/^62 % of the rollouts/)
  })

  it('warns of a rate too low for LoRA only when nothing moves', () => {
    const flat = stepRecords(6).map((record) => ({
      ...record,
      learning_rate: 1e-6,
      reward: 0.1,
      frac_reward_zero_std: 0,
      format_failures: 0,
    }))
    expect(first(flat)).toContain('1e-6 is low for LoRA')
    expect(first(flat.map((record) => ({ ...record, reward: record.step })))).toContain('The reward rises')
  })

  it('warns when the sampler is not the trained policy', () => {
    expect(first([stepRecord(1, { logprob_gap_max: 0.4 })])).toContain('disagree by up to 0.40')
  })

  it('says nothing before the first step', () => {
    expect(diagnose([])).toEqual([])
  })
})
