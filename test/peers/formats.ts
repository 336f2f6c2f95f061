// Random signatures with demos, inputs and completions, the same for every run: what both sides format and read.

import { PythonRandom } from '../../src/program'
import type { FieldType } from '../../src/program/field-type'
import { parseType } from '../../src/program/signature-text'

export interface FormatCase {
  readonly signature: string
  readonly instructions: string | null
  readonly descriptions: Readonly<Record<string, string>>
  readonly demos: readonly Record<string, unknown>[]
  readonly inputs: Readonly<Record<string, unknown>>
  readonly completions: readonly Completion[]
}

export interface Completion {
  readonly adapter: string
  readonly text: string
  /** Characters are missing, or the end is. */
  readonly damaged: boolean
}

/** A model type for the signatures to name; `formats.py` has it in pydantic. */
export const CUSTOM_TYPES: Readonly<Record<string, FieldType>> = {
  Person: {
    kind: 'model',
    name: 'Person',
    fields: [
      { name: 'name', type: { kind: 'str' }, required: true },
      { name: 'height', type: { kind: 'float' }, required: true },
      { name: 'tags', type: { kind: 'list', items: { kind: 'str' } }, required: false, default: [] },
      { name: 'email', type: parseType('Optional[str]'), required: false, default: null },
    ],
  },
}

const PLAIN = ['str', 'int', 'float', 'bool', "Literal['yes', 'no', \"it's\"]", 'Literal[1, 2, 3]']
const NAMES = ['question', 'context', 'docs', 'answer', 'why', 'score', 'fooBar', 'HTTPCode2', 'people', 'x']
const TEXTS = [
  'Paris',
  'a & b < c',
  'line one\nline two',
  '',
  '«quoted»',
  'naïve café ☕',
  '{"a": 1}',
  'it\'s "so"',
  ' padded ',
  '[[ ## x ## ]]',
]

export class FormatCases {
  readonly #random: PythonRandom

  constructor(seed: number) {
    this.#random = new PythonRandom(seed)
  }

  next(): FormatCase {
    const names = this.#random.sample(NAMES, this.#random.randint(2, 6))
    const split = this.#random.randint(1, names.length - 1)
    const types = new Map(names.map((name) => [name, this.#type(2)]))
    const side = (part: readonly string[]) => part.map((name) => `${name}: ${types.get(name)}`).join(', ')
    const row = (kept: readonly string[]) =>
      Object.fromEntries(kept.map((name) => [name, this.#value(parseType(types.get(name)!, CUSTOM_TYPES))]))
    const inputs = names.slice(0, split)
    return {
      signature: `${side(inputs)} -> ${side(names.slice(split))}`,
      instructions: this.#chance(0.5) ? `Do it well.\n\n    Mind the ${this.#random.choice(TEXTS)}` : null,
      descriptions: Object.fromEntries(
        names.filter(() => this.#chance(0.3)).map((name) => [name, `the ${this.#random.choice(TEXTS)}`]),
      ),
      demos: Array.from({ length: this.#random.randint(0, 3) }, () => row(names.filter(() => this.#chance(0.85)))),
      inputs: row(inputs.filter(() => this.#chance(0.95))),
      completions: [],
    }
  }

  /** An answer as it is, or wrapped in prose or a code fence, or with its end or some characters lost. */
  completion(adapter: string, text: string): Completion {
    const at = this.#random.randint(0, text.length)
    const end = Math.min(text.length, at + this.#random.randint(0, 6))
    const harm = this.#random.choice(['cut', 'drop', 'prose', 'none', 'fence'] as const)
    const damaged = harm === 'cut' || harm === 'drop'
    const wrapped = {
      none: text,
      prose: `Sure, here it is:\n\n${text}\n\nI hope this helps.`,
      fence: `\`\`\`json\n${text}\n\`\`\``,
    }
    const kept = harm === 'cut' ? text.slice(0, at) : text.slice(0, at) + text.slice(end)
    return { adapter, damaged, text: damaged ? kept : wrapped[harm] }
  }

  #chance(p: number): boolean {
    return this.#random.random() < p
  }

  #type(depth: number): string {
    const inner = () => this.#type(depth - 1)
    const plain = () => this.#random.choice([...PLAIN, 'Person'])
    const nested = [
      () => `list[${inner()}]`,
      () => `dict[str, ${inner()}]`,
      () => `Optional[${plain()}]`,
      () => `tuple[${plain()}, ${plain()}]`,
      () => `${plain()} | None`,
    ]
    return depth > 0 && this.#chance(0.4) ? this.#random.choice(nested)() : plain()
  }

  #value(type: FieldType): unknown {
    const several = <T>(make: () => T) => Array.from({ length: this.#random.randint(0, 3) }, make)
    switch (type.kind) {
      case 'str':
        return this.#random.choice(TEXTS)
      case 'int':
        return this.#random.randint(-5, 2_000_000)
      case 'float':
        return this.#random.choice([3, -0.5, 1e-7, 1e22, 0.1, 12345.678])
      case 'bool':
        return this.#chance(0.5)
      case 'literal':
        return this.#random.choice([...type.values])
      case 'list':
        return several(() => this.#value(type.items!))
      case 'dict':
        return Object.fromEntries(several(() => [this.#random.choice(['a', 'two words', 'b-c']), this.#value(type.value!)]))
      case 'tuple':
        return type.items!.map((item) => this.#value(item))
      case 'union':
        return this.#value(this.#random.choice([...type.options]))
      case 'model':
        return Object.fromEntries(
          type.fields
            .filter((field) => field.required || this.#chance(0.5))
            .map((field) => [field.name, this.#value(field.type)]),
        )
      default:
        return null
    }
  }
}
