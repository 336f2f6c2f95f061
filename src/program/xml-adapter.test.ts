import { describe, expect, it } from 'vitest'
import { z } from 'zod'
import { Signature } from './signature'
import { XMLAdapter } from './xml-adapter'

const adapter = new XMLAdapter()
const person = z.object({ name: z.string(), tags: z.array(z.string()) }).meta({ title: 'Person' })
const signature = new Signature({
  inputs: { q: 'str' },
  outputs: { who: person, scores: 'dict[str, float]', note: 'str' },
}) as Signature
const outputs = { who: { name: 'A & B', tags: ['x', '<y>'] }, scores: { a: 0.5, 'two words': 1 }, note: 'a < b & c' }

describe('XMLAdapter', () => {
  it('reads back what it writes', () => {
    const { messages } = adapter.formatFinetuneData(signature, [], { q: 'x' }, outputs)
    const written = messages.at(-1)!.content
    expect(written).toContain('<scores><a>0.5</a><entry key="two words">1.0</entry></scores>')
    expect(adapter.parse(signature, written)).toEqual(outputs)
  })

  it('shows the form of nested fields', () => {
    expect(adapter.format(signature, [], { q: 'x' }).at(-1)!.content).toBe(
      '<q>\nx\n</q>\n\nRespond with the corresponding output fields wrapped in XML tags `<who>`, then `<scores>`, then `<note>`. ' +
        'Use this nested XML structure: <who><name>...</name><tags><item>...</item></tags></who> <scores>...</scores>',
    )
  })

  it('says where the XML breaks', () => {
    const result = adapter.tryParse(signature, '<note>R&D</note>')
    expect(result.issues![0]!.message).toMatch(/Failed to parse XML: .*&/)
    expect(result).toMatchObject({ partial: null })
  })

  it('takes a single text as one item, repeated tags as several', () => {
    const list = new Signature('q -> tags: list[str]') as unknown as Signature
    expect(adapter.parse(list, '<tags>a</tags>').tags).toEqual(['a'])
    expect(adapter.parse(list, '<tags>a</tags><tags>b</tags>').tags).toEqual(['a', 'b'])
  })

  it('keeps the text of markup inside a text field', () => {
    const text = new Signature('q -> a') as unknown as Signature
    expect(adapter.parse(text, '<a>see <b class="x">bold</b>, <br/> end</a>').a).toBe('see <b class="x">bold</b>, <br /> end')
  })
})
