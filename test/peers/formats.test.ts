// The three adapters write dspy's very bytes, and read what dspy reads, for signatures, demonstrations and completions at random.

import { isDeepStrictEqual as equals } from 'node:util'
import { beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { AdapterParseError } from '../../src/errors'
import { type Adapter, ChatAdapter, JSONAdapter, Signature, type SignatureSource, XMLAdapter } from '../../src/program'
import { TypeMismatch } from '../../src/program/parse-value'
import type { Message } from '../../src/protocol'
import { CUSTOM_TYPES, type FormatCase, FormatCases } from './formats'
import { noPeers, python, SLOW } from './python'

interface Result {
  readonly formats: Readonly<Record<string, Message[]>>
  readonly parses: readonly Record<string, unknown>[]
}

const ADAPTERS: Readonly<Record<string, Adapter>> = { chat: new ChatAdapter(), json: new JSONAdapter(), xml: new XMLAdapter() }
const COUNT = 150

const missing = noPeers()
beforeEach(({ skip }) => skip(missing !== null, missing ?? ''))

let cases: FormatCase[]
let theirs: Result[]
beforeAll(async () => {
  if (missing !== null) return
  const random = new FormatCases(8)
  cases = Array.from({ length: COUNT }, () => withCompletions(random.next(), random))
  theirs = await python<Result[]>('formats.py', cases)
}, SLOW)

function signatureOf({ signature, instructions, descriptions }: FormatCase): Signature {
  let built: Signature = new Signature(signature as SignatureSource, instructions ?? undefined, CUSTOM_TYPES)
  for (const [name, desc] of Object.entries(descriptions)) built = built.withUpdatedFields(name, { desc })
  return built
}

/** Every adapter's own text of an answer, as it is or spoiled. */
function withCompletions(one: FormatCase, random: FormatCases): FormatCase {
  const signature = signatureOf(one)
  const completions = one.demos.flatMap((demo) =>
    Object.entries(ADAPTERS).map(([name, adapter]) => random.completion(name, adapter.formatAssistantMessage(signature, demo))),
  )
  return { ...one, completions }
}

function parsed(adapter: Adapter, signature: Signature, text: string): Record<string, unknown> {
  try {
    return { fields: adapter.parse(signature, text) }
  } catch (error) {
    if (!(error instanceof AdapterParseError)) throw error
    // dspy's JSONAdapter lets the error of a field's type through as it is
    if (adapter instanceof JSONAdapter && error.cause instanceof TypeMismatch) return { error: 'type' }
    return { error: 'AdapterParseError', parsed: error.parsed }
  }
}

describe.each(Object.keys(ADAPTERS))('the %s adapter', (name) => {
  const adapter = ADAPTERS[name]!

  it(`writes the same messages for ${COUNT} signatures`, () => {
    for (const [i, one] of cases.entries()) {
      expect(adapter.format(signatureOf(one), one.demos, one.inputs), one.signature).toEqual(theirs[i]!.formats[name])
    }
  })

  it('reads the same fields from answers, in prose and fences too', () => {
    const answers = answersOf(name).filter(({ damaged }) => !damaged)
    expect(answers.length).toBeGreaterThan(50)
    for (const { got, wanted, text } of answers) expect(got, text).toEqual(wanted)
  })

  it('reads the same from answers that were cut off or lost characters, but for repairs that only json_repair thinks of', () => {
    const answers = answersOf(name).filter(({ damaged }) => damaged)
    expect(answers.length).toBeGreaterThan(50)
    const other = answers.filter(({ got, wanted }) => !equals(got, wanted))
    expect(other.length / answers.length, other.map(({ text }) => text).join('\n---\n')).toBeLessThan(0.04)
  })
})

function answersOf(name: string) {
  return cases.flatMap((one, i) =>
    one.completions.flatMap(({ adapter, damaged, text }, k) =>
      adapter === name
        ? [{ damaged, text, got: parsed(ADAPTERS[name]!, signatureOf(one), text), wanted: theirs[i]!.parses[k]! }]
        : [],
    ),
  )
}
