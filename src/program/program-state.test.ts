import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { OptionError } from '../errors'
import { ChainOfThought } from './chain-of-thought'
import { context } from './context'
import { DummyLM } from './dummy-lm'
import { LM } from './lm'
import { Module } from './module'
import { Predict } from './predict'

class TwoSteps extends Module {
  think = new ChainOfThought('question -> plan')
  write = new Predict('plan -> text')
  forward(inputs: { question: string }) {
    return this.think.call(inputs)
  }
}

const folder = mkdtempSync(join(tmpdir(), 'program-state-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

function worked(): TwoSteps {
  const program = new TwoSteps()
  program.write.demos = [{ plan: 'p', text: 't', augmented: true }]
  program.write.signature = program.write.signature.withInstructions('Write.').withUpdatedFields('text', { desc: 'short' })
  program.write.lm = new LM('openai/m', { temperature: 0.5, maxTokens: 7, topK: 3, apiBase: 'http://x/v1', apiKey: 'SECRET' })
  return program
}

/** The error of loading `change`d state into `program`, which has to stay as it was. */
function refusal(program: Module, state: object): Error {
  const before = JSON.stringify(program.dumpState())
  try {
    program.loadState(state)
  } catch (error) {
    expect(JSON.stringify(program.dumpState())).toBe(before)
    return error as Error
  }
  throw new Error('the state was taken')
}

describe('a saved program', () => {
  it('goes to a file and back: demos, instructions, descriptions, language model', async () => {
    const path = join(folder, 'deep/er/two-steps.json')
    await worked().save(path)
    expect(readFileSync(path, 'utf8')).not.toContain('SECRET')
    expect(readdirSync(join(folder, 'deep/er'))).toEqual(['two-steps.json'])
    const loaded = await new TwoSteps().load(path, { allowUnsafeLmState: true })
    expect(loaded.dumpState()).toEqual(worked().dumpState())
    expect(loaded.write.lm).toMatchObject({ model: 'openai/m', apiBase: 'http://x/v1', options: { topK: 3 } })
  })

  it("has a bare predictor's entry on top, as in DSPy", () => {
    expect(Object.keys(new Predict('a -> b').dumpState())).toEqual(['traces', 'train', 'demos', 'signature', 'lm'])
  })

  it('leaves out where to send prompts unless the file is trusted, and says so', () => {
    const told: string[] = []
    const loaded = context({ onWarning: (text) => void told.push(text) }, () => new TwoSteps().loadState(worked().dumpState()))
    expect((loaded.write.lm as LM).apiBase).toBeUndefined()
    expect(told).toEqual([expect.stringContaining('The saved api_base of openai/m is left out')])
  })

  it('can leave the language models alone', () => {
    const program = new TwoSteps()
    const lm = new DummyLM([])
    program.setLm(lm)
    program.loadState(worked().dumpState(), { keepLm: true })
    expect(program.getLm()).toBe(lm)
  })
})

describe('a state that does not fit', () => {
  it('names the predictors that are missing and those that are too many', () => {
    const { write, ...rest } = worked().dumpState() as Record<string, unknown>
    expect(refusal(worked(), { ...rest, rewrite: write }).message).toBe(
      "The saved state is another program's: it has no entry 'write', and this program has no predictor 'rewrite'. " +
        "Saved: 'think.predict', 'rewrite'; this program: 'think.predict', 'write'.",
    )
  })

  it('says which signature has other fields', () => {
    const state = worked().dumpState() as Record<string, object>
    const other = { ...state, write: new Predict('plan, style -> text').dumpState() }
    expect(refusal(worked(), other).message).toMatch(
      /'write' has 3 fields there \(Plan: Style: Text:\), and 'plan -> text' has 2/,
    )
  })

  it('says where it is damaged', () => {
    const state = worked().dumpState() as Record<string, { demos: unknown }>
    expect(refusal(worked(), { ...state, write: { ...state.write, demos: 'none' } }).message).toMatch(
      /state of 'write' is damaged at demos: /,
    )
    expect(refusal(worked(), []).message).toMatch(/is an object with an entry for each predictor, but this is \[\]/)
  })

  it('says what to do about a language model that only Python has', () => {
    const state = worked().dumpState() as Record<string, { lm: object }>
    const write = { ...state.write, lm: { _dspy_lm_class: 'my.Own', model: 'm' } }
    expect(refusal(worked(), { ...state, write }).message).toMatch(/of the class my\.Own, which can't be made here.*keepLm/)
  })
})

describe('a path', () => {
  it('has to be a JSON file that is there and can be read', async () => {
    const program = new TwoSteps()
    await expect(program.save(join(folder, 'x.pkl'))).rejects.toThrow(/must end with \.json: Python's pickles/)
    await expect(program.load(join(folder, 'none.json'))).rejects.toThrow(/none\.json can't be read: ENOENT/)
    writeFileSync(join(folder, 'cut.json'), '{"think.predict": {')
    await expect(program.load(join(folder, 'cut.json'))).rejects.toThrow(OptionError)
  })
})
