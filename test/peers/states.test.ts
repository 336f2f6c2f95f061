// A program saved by dspy loads here with its demos, instructions and language model, and one saved here loads there.

import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { ChainOfThought, context, LM, Module, Predict, Signature } from '../../src/program'
import { freshFolder } from '../e2e/tiny'
import { noPeers, python, SLOW } from './python'

class Inner extends Module {
  p = new Predict('question -> answer')
  forward(inputs: { question: string }) {
    return this.p.call(inputs)
  }
}

class Pipeline extends Module {
  draft = new ChainOfThought(new Signature('question, docs: list[str] -> outline', 'Draft ünïcode.\n\nTwo parts.'))
  many = [new Predict('outline -> text, words: int'), new Inner()]
  table = { x: new Predict("text -> label: Literal['a', 'b']") }
  forward(inputs: { question: string; docs: string[] }) {
    return this.draft.call(inputs)
  }
}

class Other extends Module {
  something = new Predict('a -> b')
  forward(inputs: { a: string }) {
    return this.something.call(inputs)
  }
}

const PROGRAMS: Readonly<Record<string, () => Module>> = {
  pipeline: () => new Pipeline(),
  bare: () => new Predict('question -> answer'),
  other: () => new Other(),
}
const NAMES = Object.keys(PROGRAMS)

/** A program as an optimizer leaves it, as `trained` in states.py. */
function trained(name: string): Module {
  const program = PROGRAMS[name]!()
  for (const [i, predictor] of program.predictors().entries()) {
    const fields = predictor.signature.fields.map((field) => field.name)
    predictor.demos = [
      { ...Object.fromEntries(fields.map((field) => [field, `${field} «${i}»\nnext`])), augmented: true },
      { [fields[0]!]: 'plain', [fields.at(-1)!]: 0.5 },
    ]
    predictor.signature = predictor.signature
      .withInstructions(`Instructions ${i}: naïve.`)
      .withUpdatedFields(fields.at(-1)!, { desc: `the ${i}th` })
  }
  program.predictors()[0]!.lm = new LM('openai/gpt-4o-mini', {
    ...{ temperature: 0.7, maxTokens: 50, topP: 0.9, apiKey: 'SECRET', numRetries: 5 },
  })
  return program
}

const missing = noPeers()
beforeEach(({ skip }) => skip(missing !== null, missing ?? ''))

const folder = freshFolder()
afterAll(() => rmSync(folder, { recursive: true, force: true }))
const fileOf = (name: string) => join(folder, `ours-${name}.json`)

let answer: { theirs: Record<string, string>; loaded: Record<string, unknown> }
beforeAll(async () => {
  if (missing !== null) return
  for (const name of NAMES) await trained(name).save(fileOf(name))
  const ours = Object.fromEntries(NAMES.map((name) => [name, readFileSync(fileOf(name), 'utf8')]))
  answer = await python('states.py', { folder, ours })
  for (const name of NAMES) writeFileSync(join(folder, `theirs-${name}.json`), answer.theirs[name]!)
}, SLOW)

const theirFile = (name: string) => join(folder, `theirs-${name}.json`)
const withoutVersions = (text: string) => text.slice(0, text.indexOf('"dependency_versions"'))

describe.each(NAMES)('the program %s', (name) => {
  it('is saved as the same file', () => {
    expect(withoutVersions(readFileSync(fileOf(name), 'utf8'))).toBe(withoutVersions(answer.theirs[name]!))
    expect(answer.theirs[name]).not.toContain('SECRET')
  })

  it('saved by dspy loads here, whole', async () => {
    const program = await PROGRAMS[name]!().load(theirFile(name))
    expect(program.dumpState()).toEqual(trained(name).dumpState())
    expect(program.predictors()[0]!.lm).toMatchObject({
      model: 'openai/gpt-4o-mini',
      numRetries: 5,
      options: { temperature: 0.7, maxTokens: 50, topP: 0.9 },
    })
  })

  it('saved here loads in dspy, whole', () => {
    expect(answer.loaded[name]).toEqual(trained(name).dumpState())
  })
})

describe("another program's file", () => {
  it('is refused by name, and changes nothing', async () => {
    const program = trained('pipeline')
    const before = program.dumpState()
    await expect(program.load(theirFile('other'))).rejects.toThrow(
      /no entry 'draft\.predict', 'many\[0\]', 'many\[1\]\.p', 'table\['x'\]', and this program has no predictor 'something'/,
    )
    await expect(program.load(theirFile('bare'))).rejects.toThrow(/another program's/)
    expect(program.dumpState()).toEqual(before)
  })

  it('warns of another version of dspy', async () => {
    const told: string[] = []
    const path = join(folder, 'older.json')
    writeFileSync(path, answer.theirs['bare']!.replace('"dspy": "3.3.1"', '"dspy": "2.6.0"'))
    await context({ onWarning: (text) => void told.push(text) }, () => PROGRAMS['bare']!().load(path))
    expect(told).toEqual(["The program was saved by DSPy 2.6.0; this is DSPy 3.3.1's format."])
  })
})
