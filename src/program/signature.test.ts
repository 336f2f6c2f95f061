import { describe, expect, expectTypeOf, it } from 'vitest'
import { z } from 'zod'
import { ChainOfThought } from './chain-of-thought'
import { InputField, OutputField } from './field'
import { typeName } from './field-type'
import { Predict } from './predict'
import { type InputsOf, type OutputsOf, Signature } from './signature'
import { SignatureError } from './signature-text'

describe('a signature from a string', () => {
  it('keeps order, types and names', () => {
    const signature = new Signature('question, docs: list[str] -> answer: bool, why')
    expect(signature.inputFields.map((field) => [field.name, typeName(field.type)])).toEqual([
      ['question', 'str'],
      ['docs', 'list[str]'],
    ])
    expect(signature.signature).toBe('question, docs -> answer, why')
    expect(signature.instructions).toBe('Given the fields `question`, `docs`, produce the fields `answer`, `why`.')
  })

  it('says what is wrong and how to write it', () => {
    expect(() => new Signature('question -> answer: list[')).toThrow(/can't be read.*Write it like/)
    expect(() => new Signature('a, a b -> c')).toThrow(SignatureError)
    expect(() => new Signature('q -> a: Persn')).toThrow('Unknown name: Persn')
    expect(() => new Signature('_a -> b')).toThrow("use 'a' instead of '_a'")
  })

  it('reads variadic tuples, unions in any order, and commas inside quotes', () => {
    const signature = new Signature("q -> t: tuple[int, ...], u: None | str, l: Literal['a, b', 'c']")
    expect(signature.outputFields.map((field) => typeName(field.type))).toEqual([
      'tuple[int, Ellipsis]',
      'Union[NoneType, str]',
      "Literal['a, b', 'c']",
    ])
  })
})

describe('a signature from zod', () => {
  const signature = new Signature({
    inputs: { question: z.string(), limit: z.int().min(1).max(9).default(3) },
    outputs: {
      metres: z.number().describe('the height'),
      people: z.array(z.object({ name: z.string(), age: z.int().optional() }).meta({ title: 'Person' })),
      colour: z.enum(['red', 'deep blue']),
      note: z.string().nullable(),
    },
    instructions: 'Measure it.',
  })

  it('shows Python types, descriptions, limits and defaults', () => {
    expect(signature.fields.map((field) => typeName(field.type))).toEqual([
      'str',
      'int',
      'float',
      'list[Person]',
      "Literal['red', 'deep blue']",
      'Union[str, NoneType]',
    ])
    expect(signature.field('metres')!.desc).toBe('the height')
    expect(signature.field('limit')).toMatchObject({
      constraints: 'greater than or equal to: 1, less than or equal to: 9',
      default: 3,
    })
    expect(signature.instructions).toBe('Measure it.')
  })

  it('takes description and prefix from the schema, and lets options win', () => {
    const text = z.string().meta({ description: 'what to say', prefix: 'Say:' })
    const described = new Signature({ inputs: { q: text }, outputs: { a: { type: text, prefix: 'A:' } } })
    expect(described.field('q')).toMatchObject({ desc: 'what to say', prefix: 'Say:' })
    expect(described.field('a')).toMatchObject({ desc: 'what to say', prefix: 'A:' })
  })

  it('says what a signature can be', () => {
    expect(() => new Signature(undefined as never)).toThrow(/A signature is a string like .* but this is undefined/)
    expect(() => new Signature({ input: {}, outputs: {} } as never)).toThrow(/but this is an object with input, outputs/)
  })

  it('refuses a schema that has no Python type', () => {
    expect(() => new Signature({ inputs: { when: z.date() }, outputs: { a: z.string() } })).toThrow(
      /z\.date\(\) in the field 'When'/,
    )
  })

  it('refuses a name on both sides', () => {
    expect(() => new Signature({ inputs: { a: 'str' }, outputs: { a: 'str' } })).toThrow(/distinct names/)
  })
})

describe('a signature from a class', () => {
  class Judge {
    static instructions = `
      Judge the answer.
    `
    question = InputField()
    answer = InputField({ desc: 'what was said' })
    isRight = OutputField({ type: 'bool' })
    score = OutputField({ type: z.number().min(0) })
  }

  it('has the class name, its fields in order, and its instructions', () => {
    const signature = new Signature(Judge)
    expect(String(signature)).toBe('Judge(question, answer -> isRight, score)')
    expect(signature.instructions).toBe('Judge the answer.')
    expect(signature.field('answer')!.desc).toBe('what was said')
    expect(signature.field('score')!.constraints).toBe('greater than or equal to: 0')
    class Bare {
      a = InputField()
      b = OutputField()
    }
    expect(new Signature(Bare).instructions).toBe('Given the fields `a`, produce the fields `b`.')
  })

  it('types the call', () => {
    const predict = new Predict(Judge)
    expectTypeOf(predict.forward).parameter(0).toEqualTypeOf<{ question: string; answer: string }>()
    expectTypeOf<OutputsOf<typeof Judge>>().toEqualTypeOf<{ isRight: boolean; score: number }>()
  })

  it('says which property is no field', () => {
    class Wrong {
      question = InputField()
      answer = 'str'
    }
    expect(() => new Signature(Wrong)).toThrow("'answer' of the signature class Wrong is no field")
  })
})

describe('edits', () => {
  const base = new Signature('question -> answer')

  it('leave the original alone', () => {
    const edited = base.prepend('hint', InputField({ desc: 'may help' }), 'list[str]').append('score', OutputField(), 'float')
    expect(edited.signature).toBe('hint, question -> answer, score')
    expect(base.signature).toBe('question -> answer')
    expect(edited.instructions).toBe(base.instructions)
  })

  it('refuse a position that does not exist', () => {
    expect(() => base.insert(5, 'x', OutputField())).toThrow("Can't insert 'x' at 5: there are 1 output fields, so use −1 to 1.")
  })

  it('equality looks at instructions and descriptions, not at types', () => {
    expect(base.equals(new Signature('question -> answer: int'))).toBe(true)
    expect(base.equals(base.withInstructions('Go.'))).toBe(false)
    expect(base.equals(new Signature('question -> reply').withInstructions(base.instructions))).toBe(false)
  })

  it('a saved state comes back by position', () => {
    const state = base.withUpdatedFields('answer', { desc: 'one word' }).withInstructions('Be brief.').dumpState()
    const loaded = base.loadState(state)
    expect(loaded.instructions).toBe('Be brief.')
    expect(loaded.field('answer')!.desc).toBe('one word')
  })
})

describe('types', () => {
  type Typed =
    'a: int, b: list[str], c: dict[str, list[int]], d -> e: Literal["x", "y, z", 3], f: Optional[float], g: tuple[int, str], h: int | None'

  it('are read from the string', () => {
    expectTypeOf<InputsOf<Typed>>().toEqualTypeOf<{ a: number; b: string[]; c: Record<string, number[]>; d: string }>()
    expectTypeOf<OutputsOf<Typed>>().toEqualTypeOf<{
      e: 'x' | 'y, z' | 3
      f: number | null
      g: [number, string]
      h: number | null
    }>()
  })

  it('are read from zod, and follow edits', () => {
    const signature = new Signature({ inputs: { q: z.string() }, outputs: { n: z.number(), tags: 'list[str]' } })
    const edited = signature.prepend('hint', InputField(), 'bool').delete('tags')
    expectTypeOf<InputsOf<(typeof edited)['source']>>().toEqualTypeOf<{ q: string; hint: boolean }>()
    expectTypeOf<OutputsOf<(typeof edited)['source']>>().toEqualTypeOf<{ n: number }>()
  })

  it('reach the call: inputs are asked for, outputs are known, and a typo is an error', () => {
    const program = new ChainOfThought('question -> answer: bool')
    expectTypeOf(program.forward).parameter(0).toEqualTypeOf<{ question: string }>()
    expectTypeOf<Awaited<ReturnType<typeof program.call>>>().toHaveProperty('answer').toEqualTypeOf<boolean>()
    expectTypeOf<Awaited<ReturnType<typeof program.call>>>().toHaveProperty('reasoning').toEqualTypeOf<string>()
    expectTypeOf<Awaited<ReturnType<typeof program.call>>>().not.toHaveProperty('anwser')
  })

  it('make a missing, an unknown and a wrong field compile errors', () => {
    const ask = (predict: Predict<'question, k: int -> answer: float, tags: list[str]'>) => [
      predict.call({ question: 'x', k: 1 }),
      // @ts-expect-error: k is missing
      predict.call({ question: 'x' }),
      // @ts-expect-error: no field has this name
      predict.call({ question: 'x', k: 1, queston: 'x' }),
      // @ts-expect-error: k is a number
      predict.call({ question: 'x', k: 'one' }),
      predict.call({ question: 'x', k: 1 }).then(({ answer, tags }) => answer.toFixed(1) + tags[0]!.length),
      // @ts-expect-error: the output is called answer
      predict.call({ question: 'x', k: 1 }).then((prediction) => prediction.anwser),
    ]
    expectTypeOf(ask).toBeFunction()
  })

  it('follow every edit of a signature', () => {
    const base = new Signature('question -> answer: int')
    const appended = base.append('score', OutputField(), 'float').insert(0, 'docs', InputField({ type: 'list[str]' }))
    expectTypeOf<OutputsOf<(typeof appended)['source']>>().toEqualTypeOf<{ answer: number; score: number }>()
    expectTypeOf<InputsOf<(typeof appended)['source']>>().toEqualTypeOf<{ question: string; docs: string[] }>()
    const renamed = appended.withInstructions('Go.').appendInstructions('Now.').delete('score')
    expectTypeOf<OutputsOf<(typeof renamed)['source']>>().toEqualTypeOf<{ answer: number }>()
    const changed = base.withUpdatedFields('answer', { type: 'str' })
    expectTypeOf<OutputsOf<(typeof changed)['source']>>().toEqualTypeOf<{ answer: string }>()
    const described = base.withUpdatedFields('answer', { desc: 'a whole number' })
    expectTypeOf<OutputsOf<(typeof described)['source']>>().toEqualTypeOf<{ answer: number }>()
  })

  it('are loose for a string that is known only at run time', () => {
    const predictor = new Predict('question -> answer' as string)
    expectTypeOf<Awaited<ReturnType<typeof predictor.call>>['anything']>().toBeAny()
  })
})
