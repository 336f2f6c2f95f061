import { afterEach, describe, expect, it } from 'vitest'
import type { MimeBundle } from './mime'
import { drawWarning, toldElsewhere } from './warnings'

const HOST = Symbol.for('arbor-nb.display-host')
const globals = globalThis as unknown as Record<symbol, unknown>

function withHost(): string[] {
  const lines: string[] = []
  globals[HOST] = { display: (bundle: MimeBundle) => lines.push(String(bundle['text/plain'])), update: () => {} }
  return lines
}

describe('warnings', () => {
  afterEach(() => {
    delete globals[HOST]
  })

  it('are shown once each, and not where a chart has told them', () => {
    const lines = withHost()
    toldElsewhere('trial 3 counts 0')
    for (const text of ['no input', 'no input', 'trial 3 counts 0', 'cut off']) drawWarning(text)
    expect(lines).toEqual(['Warning: no input', 'Warning: cut off'])
  })

  it('end with a word about those that are not shown', () => {
    const lines = withHost()
    for (let i = 0; i < 100; i++) drawWarning(`call ${i}`)
    expect(lines.length).toBeLessThan(50)
    expect(lines.at(-1)).toMatch(/Further warnings are not shown/)
  })
})
