// The TypeScript types of a signature, read from its string by template literal types, or from its zod fields.

import type { History } from './field-type'

/** A record whose values are used without a cast: fields of untyped programs, of examples and of predictions in metrics. */
// biome-ignore lint/suspicious/noExplicitAny: the one place; `example.answer.toLowerCase()` has to compile in a notebook cell
export type Loose = Record<string, any>

/** What any zod schema has, as far as types and `field-from-zod.ts` need it. */
export interface ZodLike {
  readonly _zod: { readonly output: unknown; readonly def: { readonly type: string } }
}

/** `{ inputs, outputs }` of a string like `'question, docs: list[str] -> answer: bool'`; loose for a string known only at run time. */
export type SignatureTypes<S extends string> = string extends S
  ? { inputs: Loose; outputs: Loose }
  : S extends `${infer I}->${infer O}`
    ? { inputs: FieldTypes<SplitTop<I>>; outputs: FieldTypes<SplitTop<O>> }
    : { inputs: Loose; outputs: Loose }

type FieldTypes<Parts extends readonly string[]> = Flat<UnionToIntersection<OneField<Trim<Parts[number]>>>>

type OneField<Part extends string> = Part extends ''
  ? Record<never, never>
  : Part extends `${infer Name}:${infer Type}`
    ? { [K in Trim<Name>]: PythonType<Trim<DropDefault<Type>>> }
    : { [K in Trim<DropDefault<Part>>]: string }

type DropDefault<S extends string> = S extends `${infer Head}=${string}` ? Head : S

/** The TypeScript type of a Python type's text; what isn't known is loose. */
export type PythonType<T extends string> = T extends keyof Simple
  ? Simple[T]
  : SplitTop<T, '|'> extends [string, string, ...string[]]
    ? PythonType<Trim<SplitTop<T, '|'>[number]>>
    : T extends `${'list' | 'List' | 'set' | 'Set' | 'Sequence'}[${infer Item}]`
      ? PythonType<Trim<Item>>[]
      : T extends `${'dict' | 'Dict'}[${infer Inner}]`
        ? DictType<SplitTop<Inner>>
        : T extends `${'tuple' | 'Tuple'}[${infer Inner}]`
          ? TupleType<SplitTop<Inner>>
          : T extends `Optional[${infer Inner}]`
            ? PythonType<Trim<Inner>> | null
            : T extends `Union[${infer Inner}]`
              ? PythonType<Trim<SplitTop<Inner>[number]>>
              : T extends `Literal[${infer Inner}]`
                ? LiteralType<Trim<SplitTop<Inner>[number]>>
                : Loose[string]

interface Simple {
  str: string
  int: number
  float: number
  bool: boolean
  None: null
  NoneType: null
  list: Loose[string][]
  dict: Loose
  Any: Loose[string]
  'dspy.History': History
  History: History
}

type DictType<Parts extends readonly string[]> = Parts extends [string, infer V extends string]
  ? Record<string, PythonType<Trim<V>>>
  : Loose

type TupleType<Parts extends readonly string[]> = Parts extends [infer Only extends string, ` ...` | '...']
  ? PythonType<Trim<Only>>[]
  : { [I in keyof Parts]: PythonType<Trim<Parts[I]>> }

type LiteralType<T extends string> = T extends `'${infer Text}'` | `"${infer Text}"`
  ? Text
  : T extends 'True'
    ? true
    : T extends 'False'
      ? false
      : T extends 'None'
        ? null
        : T extends `${infer N extends number}`
          ? N
          : T

/** Splits at commas (or `|`) outside brackets and quotes: a piece that isn't complete takes the next piece with it. */
export type SplitTop<
  S extends string,
  At extends string = ',',
  Open extends string = '',
> = S extends `${infer Head}${At}${infer Rest}`
  ? IsComplete<`${Open}${Head}`> extends true
    ? [`${Open}${Head}`, ...SplitTop<Rest, At>]
    : SplitTop<Rest, At, `${Open}${Head}${At}`>
  : [`${Open}${S}`]

type IsComplete<S extends string> =
  Trim<S> extends `'${infer Text}` | `"${infer Text}`
    ? Text extends `${string}'` | `${string}"`
      ? true
      : false
    : Count<S, '['>['length'] extends Count<S, ']'>['length']
      ? true
      : false

type Count<S extends string, Char extends string> = S extends `${string}${Char}${infer Rest}` ? [1, ...Count<Rest, Char>] : []

type Blank = ' ' | '\n' | '\t'
export type Trim<S> = S extends `${Blank}${infer Rest}`
  ? Trim<Rest>
  : S extends `${infer Rest}${Blank}`
    ? Trim<Rest>
    : S extends string
      ? S
      : never

type UnionToIntersection<U> = (U extends unknown ? (value: U) => void : never) extends (value: infer I) => void ? I : never
export type Flat<T> = { [K in keyof T]: T[K] }
