import { describe, expect, it } from 'vitest'
import { z } from 'zod'
import { AdapterParseError } from '../errors'
import { ChatAdapter } from './chat-adapter'
import { Example } from './example'
import { Signature } from './signature'

const adapter = new ChatAdapter()
const plain = (signature: unknown) => signature as Signature
const answerOf = (type: string, text: string) =>
  adapter.parse(new Signature(`q -> a: ${type}` as string), `[[ ## a ## ]]\n${text}`).a

describe('format', () => {
  const signature = plain(new Signature('question -> answer'))

  it('takes examples and plain rows as demos', () => {
    const rows = [{ question: 'q', answer: 'a' }, new Example({ question: 'q', answer: 'a' })]
    const [fromPlain, fromExample] = rows.map((row) => adapter.format(signature, [row], { question: 'x' }))
    expect(fromExample).toEqual(fromPlain)
  })

  it('shows outputs that are missing in training data as None', () => {
    const { messages } = adapter.formatFinetuneData(signature, [], { question: 'x' }, {})
    expect(messages.at(-1)!.content).toBe('[[ ## answer ## ]]\nNone\n\n[[ ## completed ## ]]\n')
  })
})

describe('parse', () => {
  it('gives a failure as a value, with what could be read', () => {
    const result = adapter.tryParse(plain(new Signature('q -> a, b: int')), '[[ ## a ## ]]\nx')
    expect(result.issues).toEqual([{ field: 'b', message: "the field 'b' is missing" }])
    expect(result).toMatchObject({ partial: { a: 'x' }, raw: '[[ ## a ## ]]\nx' })
  })

  it('names the field with a wrong value', () => {
    const result = adapter.tryParse(plain(new Signature('q -> a: int')), '[[ ## a ## ]]\nmany')
    expect(result.issues![0]!.field).toBe('a')
    expect(() => adapter.parse(plain(new Signature('q -> a: int')), '[[ ## a ## ]]\nmany')).toThrow(AdapterParseError)
  })

  it('reads values as people and models write them', () => {
    expect(answerOf('int', ' 3.0 ')).toBe(3)
    expect(answerOf('bool', 'yes')).toBe(true)
    expect(answerOf('list[str]', "Here: ['a', 'b',]")).toEqual(['a', 'b'])
    expect(answerOf('Optional[int]', 'None')).toBeNull()
    expect(answerOf('str | None', 'null')).toBe('null')
    expect(answerOf("Literal['yes', 'no']", "Literal['no']")).toBe('no')
  })

  it('lets a zod schema have the last word', () => {
    const signature = new Signature({
      inputs: { q: 'str' },
      outputs: { n: z.number().max(10), who: z.object({ name: z.string(), age: z.int().optional() }) },
    })
    const completion = (n: number, who: string) => `[[ ## n ## ]]\n${n}\n\n[[ ## who ## ]]\n${who}`
    const read = (text: string) => adapter.tryParse(plain(signature), text)
    expect(read(completion(3, "{name: 'Ann'}")).fields).toEqual({ n: 3, who: { name: 'Ann' } })
    expect(read(completion(3, '{"name": "Ann", "age": null}')).fields).toEqual({ n: 3, who: { name: 'Ann' } })
    expect(read(completion(11, '{"name": "Ann"}')).issues![0]!.field).toBe('n')
    expect(read(completion(3, '{"age": 1}')).issues![0]!.message).toMatch(/who.name|name: Field required/)
  })

  it('leaves an optional field undefined when the model leaves it out', () => {
    const signature = new Signature({ inputs: { q: 'str' }, outputs: { a: 'str', note: z.string().optional() } })
    expect(adapter.parse(plain(signature), '[[ ## a ## ]]\nx')).toEqual({ a: 'x', note: undefined })
  })

  it('writes whole numbers of float fields as Python holds them, alone and inside other types', () => {
    const signature = new Signature('score: float, row: list[Optional[float]], n: int -> table: dict[str, float], any: Any')
    const content = (adapter: ChatAdapter) =>
      adapter.format(signature, [], { score: 3, row: [1, null, 0.5], n: 3 }).at(-1)!.content
    expect(content(new ChatAdapter())).toMatch(
      /^\[\[ ## score ## \]\]\n3\.0\n\n\[\[ ## row ## \]\]\n\[1\.0, null, 0\.5\]\n\n\[\[ ## n ## \]\]\n3\n/,
    )
  })
})
