import { describe, expect, expectTypeOf, it } from 'vitest'
import { z } from 'zod'
import { AdapterParseError, ContextWindowExceededError, LMError } from '../errors'
import { context } from './context'
import { DummyLM } from './dummy-lm'
import { ReAct } from './react'
import { Tool } from './tool'

const step = (tool: string, args: object = {}, thought = 'hm') => ({
  next_thought: thought,
  next_tool_name: tool,
  next_tool_args: args,
})
const done = { reasoning: 'r', answer: 'a' }
const run = (agent: ReAct<'question -> answer'>, answers: ConstructorParameters<typeof DummyLM>[0]) => {
  const lm = new DummyLM(answers)
  const warnings: string[] = []
  const onWarning = (text: string) => void warnings.push(text)
  return { lm, warnings, answer: context({ lm, onWarning }, () => agent.call({ question: 'q' })) }
}

const echo = new Tool({ name: 'echo', args: z.object({ text: z.string() }), run: ({ text }) => text.toUpperCase() })
const broken = new Tool({
  name: 'broken',
  run: () => {
    throw new TypeError('no luck')
  },
})
const agent = (tools: Tool[] = [echo, broken], options = {}) => new ReAct('question -> answer', { tools, ...options })

describe('ReAct', () => {
  it('calls tools until it is done, and keeps what happened', async () => {
    const { answer } = run(agent(), [step('echo', { text: 'hi' }, 'try'), step('finish'), done])
    const prediction = await answer
    expectTypeOf(prediction.answer).toEqualTypeOf<string>()
    expect(prediction.toDict()).toEqual({
      trajectory: {
        thought_0: 'try',
        tool_name_0: 'echo',
        tool_args_0: { text: 'hi' },
        observation_0: 'HI',
        thought_1: 'hm',
        tool_name_1: 'finish',
        tool_args_1: {},
        observation_1: 'Completed.',
      },
      reasoning: 'r',
      answer: 'a',
    })
  })

  it('shows the model how a tool failed: what it threw, wrong arguments, a wait too long', async () => {
    const slow = new Tool({ name: 'slow', run: () => new Promise(() => {}) })
    const patient = agent([echo, broken, slow], { toolTimeoutMs: 20 })
    const { answer, lm } = run(patient, [step('broken'), step('echo', { words: 1 }), step('slow'), step('finish'), done])
    expect((await answer).trajectory).toMatchObject({
      observation_0: 'Execution error in broken: TypeError: no luck',
      observation_1: "Execution error in echo: ValueError: Arg words is not in the tool's args.",
      observation_2: "Execution error in slow: ValueError: 'slow' took longer than 0.02 s",
    })
    expect(lm.history.at(-1)!.messages.at(-1)!.content).toContain('Execution error in broken: TypeError: no luck')
  })

  it('ends after maxIters tool calls, and answers from what it knows', async () => {
    const { answer, lm } = run(agent(undefined, { maxIters: 2 }), [
      step('echo', { text: 'a' }),
      step('echo', { text: 'b' }),
      done,
    ])
    expect(Object.keys((await answer).trajectory)).toHaveLength(8)
    expect(lm.history).toHaveLength(3)
  })

  it('ends at a tool that is not there, with what it knows so far', async () => {
    const { answer, warnings } = run(agent(), [step('echo', { text: 'a' }), step('nope'), step('nope'), done])
    await expect(answer).rejects.toThrow(AdapterParseError) // DummyLM answers in chat format, which the JSON fallback can't read
    const json = JSON.stringify(step('nope'))
    const second = run(agent(), [step('echo', { text: 'a' }), step('nope'), json, done])
    expect(Object.keys((await second.answer).trajectory)).toHaveLength(4)
    expect(second.warnings.join()).toContain('ends the trajectory after 1 steps')
    expect(warnings).toEqual([])
  })

  it('forgets the oldest tool call when the context is too small, and gives up when nothing is left to forget', async () => {
    const full = new ContextWindowExceededError('too long')
    const { answer, lm } = run(agent(), [step('echo', { text: 'a' }), step('echo', { text: 'b' }), full, step('finish'), done])
    expect(Object.keys((await answer).trajectory)).toEqual(expect.arrayContaining(['thought_1', 'thought_2']))
    expect((await answer).trajectory).not.toHaveProperty('thought_0')
    expect(lm.history).toHaveLength(4)
    await expect(run(agent(), [full, full]).answer).rejects.toThrow(/nothing to cut/)
  })

  it('passes other errors of the model on', async () => {
    await expect(run(agent(), [new LMError('down')]).answer).rejects.toThrow('down')
  })

  it('works as a copy, with the tools of the original', async () => {
    const { answer } = run(agent().deepcopy(), [step('echo', { text: 'hi' }), step('finish'), done])
    expect((await answer).trajectory['observation_0']).toBe('HI')
  })

  it('takes tools as plain options, with what they need checked', async () => {
    const options = { name: 'twice', args: z.object({ n: z.number() }), run: ({ n }: { n: number }) => 2 * n }
    const { answer } = run(new ReAct('question -> answer', { tools: [options, echo] }), [
      step('twice', { n: 4 }),
      step('finish'),
      done,
    ])
    expect((await answer).trajectory['observation_0']).toBe(8)
  })

  it('names its predictors as dspy does, and refuses tools that can not be told apart', () => {
    expect(
      agent()
        .namedPredictors()
        .map(([name]) => name),
    ).toEqual(['react', 'extract.predict'])
    expect(() => agent([echo, echo])).toThrow("Two tools are called 'echo'")
    expect(() => new ReAct('question -> answer', { tools: [{ name: 'finish', run: () => 1 }] })).toThrow(/finish/)
    expect(() => agent([], { maxIters: 0 })).toThrow(/maxIters/)
  })
})
