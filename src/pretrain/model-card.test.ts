import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { writeJson, writeWhole } from '../engine/whole-file'
import { OptionError } from '../errors'
import { modelCard, type PretrainSummary, readFigures, writeModelCard, writeSummary } from './model-card'
import { makeRecipe } from './recipe'

const summary: PretrainSummary = {
  recipe: makeRecipe({ size: '1.5M', seed: 3 }),
  parameters: 1_517_184,
  device: 'two threads',
  version: '1.2.3',
  tokens: 55e6,
  tokensUnshared: 160e6,
  trainedTokens: 24e6,
  seconds: 6000,
  loss: 0.1224,
  heldOutLoss: 0.1231,
  heldOutLossExported: 0.1235,
  meanGap: 0.002,
  largestGap: 0.1,
}
const folder = mkdtempSync(join(tmpdir(), 'arbor-card-'))
afterAll(() => rmSync(folder, { recursive: true }))

describe('model card', () => {
  it('tells size, recipe, losses and the command that makes the model again', () => {
    const card = modelCard(summary)
    expect(card).toMatch(/^---\nlicense: apache-2\.0\n/)
    for (const part of [
      '1.5M parameters',
      '6 layers, hidden 128',
      '1200 (100 warm-up, 620 at the full rate, 480 falling to 0)',
      '0.1224',
      '0.1231',
      '160.0M',
      '100 minutes',
    ])
      expect(card).toContain(part)
    expect(card).toContain(
      'arbor-nb pretrain --size 1.5M --mix habits --steps 1200 --batch 512 --learning-rate 0.003 --seed 3`, arbor-nb 1.2.3',
    )
    expect(card).not.toContain('## Figures')
  })

  it('is named after its mix, and tells seconds where minutes would be none', () => {
    expect(modelCard(summary)).toContain('# arbor-tiny, 1.5M parameters')
    const card = modelCard({ ...summary, recipe: makeRecipe({ size: '3M', mix: 'control' }), seconds: 10.3 })
    expect(card).toContain('# arbor-tiny-control, ')
    expect(card).toContain('| time | 10 seconds on two threads, f32 |')
  })

  it('takes a table of figures from a file', () => {
    writeSummary(folder, summary)
    const file = join(folder, 'figures.json')
    writeJson(file, [
      { program: 'greedy', accuracy: 0.45 },
      { program: 'T=1', accuracy: 0.42 },
    ])
    writeModelCard(folder, readFigures(file))
    expect(readFileSync(join(folder, 'README.md'), 'utf8')).toContain(
      '| program | accuracy |\n| --- | --- |\n| greedy | 0.45 |\n| T=1 | 0.42 |',
    )
  })

  it.each(['no json', '{}', '[]', '[3]'])('refuses figures that are %s', (text) => {
    const file = join(folder, 'bad.json')
    writeWhole(file, text)
    expect(() => readFigures(file)).toThrow(OptionError)
  })
})
