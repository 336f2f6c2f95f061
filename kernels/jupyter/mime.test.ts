import { describe, expect, it } from 'vitest'
import { bundleOf } from './mime'

describe('the MIME bundle of a value', () => {
  it('is text for a plain value', async () => {
    expect(await bundleOf({ a: [1] })).toEqual({ 'text/plain': '{ a: [ 1 ] }' })
    expect(await bundleOf(null)).toEqual({ 'text/plain': 'null' })
  })

  it('comes from the value itself when it has the method, with text added', async () => {
    const value = { [Symbol.for('Jupyter.display')]: async () => ({ 'text/html': '<b>hi</b>' }) }
    const bundle = await bundleOf(value)
    expect(bundle['text/html']).toBe('<b>hi</b>')
    expect(bundle['text/plain']).toContain('display')
  })

  it('is a table for a data frame, with its text escaped', async () => {
    class DataFrame {
      columns = ['q', 'n']
      index = [0, 1]
      values = [
        ['<script>', 1],
        ['b', 0.1 + 0.2],
      ]
    }
    const bundle = await bundleOf(new DataFrame())
    expect(bundle['text/html']).not.toContain('<script>')
    expect(bundle['text/html']).toContain('0.3<')
    expect(bundle['text/plain']).toContain('2 rows × 2 columns')
  })
})
