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

  it('tells groups that are solved from groups that all failed', () => {
    const alike = (reward: number) =>
      stepRecords(3).map((record) => ({
        ...record,
        ...{ reward, reward_min: reward, reward_max: reward, frac_reward_zero_std: 1, grad_norm: 0.1 },
        groups: record.groups.map((group) => ({ ...group, rewards: group.rewards.map(() => reward) })),
      }))
    expect(first(alike(1))).toContain('take harder ones')
    expect(first(alike(-1))).toContain('raise the temperature')
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

  it('warns of a fall, but not of a bad step after a good one: every step asks other questions', () => {
    const texts = (rewards: readonly number[]) =>
      diagnose(stepRecords(rewards.length).map((record, i) => ({ ...record, reward: rewards[i]!, frac_reward_zero_std: 0 }))).map(
        ({ text }) => text,
      )
    const jumping = [0.5, 0.13, 0.31, 0.37, 0.36, 0.52, 0.41, 0.24, 0.55, 0.59, 0.3, 0.38] // of a run that went well
    for (let n = 1; n <= jumping.length; n++) expect(texts(jumping.slice(0, n)).join()).not.toContain('fell back')
    const robbed = [...jumping, 0.8, 0.85, 0.9, 0.88, 0.9, 0.86, 0.5, 0.2, 0.1, 0.15, 0.1]
    expect(texts(robbed)[0]).toMatch(/^The reward fell back from 0\.88 to 0\.2\d \(means of 5 steps\)/)
    expect(texts(robbed).join()).not.toContain('rises')
  })

  it('says nothing before the first step', () => {
    expect(diagnose([])).toEqual([])
  })
})
