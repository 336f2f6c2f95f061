import { describe, expect, expectTypeOf, it } from 'vitest'
import { z } from 'zod'
import { OptionError } from '../errors'
import { Tool, tool } from './tool'

const search = new Tool({
  name: 'search',
  description: 'Finds passages.',
  args: z.object({ query: z.string(), k: z.int().default(2), lang: z.enum(['en', 'de']).optional().describe('its language') }),
  run: ({ query, k, lang }) => {
    expectTypeOf(query).toEqualTypeOf<string>()
    expectTypeOf(k).toEqualTypeOf<number>()
    expectTypeOf(lang).toEqualTypeOf<'en' | 'de' | undefined>()
    return `${k} × ${query}`
  },
})

describe('Tool', () => {
  it('checks arguments and fills defaults before it runs', async () => {
    expect(await search.call({ query: 'x' })).toBe('2 × x')
    expect(await search.call({ query: 'x', k: 5 })).toBe('5 × x')
    await expect(search.call({ query: 'x', nokey: 1 })).rejects.toThrow("Arg nokey is not in the tool's args.")
    await expect(search.call({ query: 3 })).rejects.toThrow(/Arg query is invalid: .*string/)
    await expect(search.call({})).rejects.toThrow(/Arg query is invalid/)
  })

  it('shows its arguments as pydantic does: types in alphabetical order, then default and description', () => {
    expect(search.args).toEqual({
      query: { type: 'string' },
      k: { type: 'integer', default: 2 },
      lang: { anyOf: [{ enum: ['en', 'de'], type: 'string' }, { type: 'null' }], default: null, description: 'its language' },
    })
    expect(String(search)).toBe(
      "search, whose description is <desc>Finds passages.</desc>. It takes arguments {'query': {'type': 'string'}, " +
        "'k': {'type': 'integer', 'default': 2}, 'lang': {'anyOf': [{'enum': ['en', 'de'], 'type': 'string'}, {'type': 'null'}], " +
        "'default': None, 'description': 'its language'}}.",
    )
  })

  it('puts the schemas of objects in their places', () => {
    const point = z.object({ x: z.number(), y: z.number() }).meta({ title: 'Point' })
    const draw = new Tool({ name: 'draw', args: z.object({ line: z.array(point) }), run: ({ line }) => line.length })
    const shown = {
      properties: { x: { title: 'X', type: 'number' }, y: { title: 'Y', type: 'number' } },
      required: ['x', 'y'],
      title: 'Point',
      type: 'object',
    }
    expect(draw.args).toEqual({ line: { items: shown, type: 'array' } })
  })

  it('is made of a plain function and its schema', async () => {
    const byFunction = tool(z.object({ city: z.string() }).describe('Tells the weather.'), function weather({ city }) {
      return `Sunny in ${city}.`
    })
    expect(byFunction).toMatchObject({ name: 'weather', description: 'Tells the weather.', args: { city: { type: 'string' } } })
    expect(await byFunction.call({ city: 'Bonn' })).toBe('Sunny in Bonn.')
  })

  it('refuses a tool without name, function or readable arguments', () => {
    expect(() => new Tool({ run: () => 1 })).toThrow(/needs a name/)
    expect(() => new Tool({ name: 'x', run: 'no' as never })).toThrow(/needs a function/)
    expect(() => new Tool({ name: 'x', args: z.string() as never, run: () => 1 })).toThrow(OptionError)
  })

  it('keeps the arguments of its function to their types', () => {
    // @ts-expect-error the schema has no `town`
    tool(z.object({ city: z.string() }), function bad({ town }) {
      return town
    })
  })
})
