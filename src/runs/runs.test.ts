import { appendFileSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { DISPLAY } from '../display/mime'
import { changedSettings, differences } from './differences'
import { compareRuns, Run, runIn, runsIn } from './run'
import { courseOf, summarize } from './run-summary'
import { freshStorage, writeRun } from './runs.fixture'
import { StoredRun } from './stored-run'

const ID = 'grpo:tiny:keen-crane:20260101'
const REWARDS = [0.2, 0.6, 0.4].map((reward) => ({ reward }))

describe('a stored run', () => {
  it('knows its options, its steps and how it ended', () => {
    const status = { status: 'failed', reason: 'step 4: the device is gone', pid: 1 }
    const run = new StoredRun(writeRun(freshStorage(), { id: ID, options: { learning_rate: 3e-4 }, steps: REWARDS, status }))
    expect(run).toMatchObject({
      id: ID,
      kind: 'grpo',
      model: 'arbor-tiny',
      state: 'failed',
      reason: 'step 4: the device is gone',
    })
    expect(run.steps.map((step) => step['reward'])).toEqual([0.2, 0.6, 0.4])
    expect(run.steps[0]).not.toHaveProperty('groups')
    expect(run.records[1]!.groups).toHaveLength(2)
    expect(courseOf(run, 'reward')).toEqual({ first: 0.2, last: 0.4, best: 0.6 })
    expect(courseOf(run, 'loss')).toEqual({ first: 0, last: 0, best: null }) // a policy's loss is better neither way
    expect(changedSettings(run)).toEqual({ learning_rate: '0.0003' })
  })

  it('that says it runs does so only while its process lives', () => {
    const state = (status: object) => new StoredRun(writeRun(freshStorage(), { id: ID, status })).state
    expect(state({ status: 'running', pid: process.pid })).toBe('running')
    expect(state({ status: 'running', pid: 2 ** 22 + 1 })).toBe('interrupted') // above the largest id that Linux gives
    expect(new StoredRun(writeRun(freshStorage(), { id: ID })).state).toBe('unknown')
  })

  it('is read while a line is being written, and names a line that is broken', () => {
    const folder = writeRun(freshStorage(), { id: ID, steps: REWARDS })
    appendFileSync(join(folder, 'steps.jsonl'), '{"step": 4, "rew')
    expect(new StoredRun(folder).steps).toHaveLength(3)
    appendFileSync(join(folder, 'steps.jsonl'), '\n')
    expect(() => new StoredRun(folder).steps).toThrow(/steps.jsonl: line 4 is not JSON/)
  })

  it('has every validation once: those of its records, and the last one from a checkpoint', () => {
    const steps = [{ validation_score: 40 }, { validation_score: null }, { validation_score: 60 }]
    const checkpoints = { last: [2, 60], best: [3, 70], interrupted: [3, 60], other: [1, null] } as const
    const run = new StoredRun(writeRun(freshStorage(), { id: ID, steps, checkpoints }))
    expect(run.validations()).toEqual([
      { step: 0, score: 40 },
      { step: 2, score: 60 },
      { step: 3, score: 70 },
    ])
    expect(summarize(run).best_validation).toBe(70)
    expect(run.checkpoints().map(({ name }) => name)).toEqual(['other', 'last', 'best', 'interrupted'])
  })
})

describe('the runs of a storage', () => {
  it('come newest first; one that cannot be read hides no other, and one being made is left out', () => {
    const storage = freshStorage()
    expect(runsIn(storage)).toHaveLength(0)
    writeRun(storage, { id: 'grpo:tiny:old:1', created: 1 })
    writeRun(storage, { id: 'ftjob:tiny:new:1', created: 2 })
    mkdirSync(join(storage, 'runs', 'making'))
    mkdirSync(join(storage, 'runs', 'broken'))
    writeFileSync(join(storage, 'runs', 'broken', 'config.json'), '{')
    const runs = runsIn(storage)
    expect([...runs].map(({ id }) => id)).toEqual(['ftjob:tiny:new:1', 'grpo:tiny:old:1'])
    expect(runs.unreadable).toEqual([expect.stringMatching(/broken.config\.json can't be read/)])
  })

  it('are found by a part of the id that one has, or as the last', () => {
    const storage = freshStorage()
    expect(() => runIn(storage, 'last')).toThrow(/no runs in/)
    for (const [i, name] of ['keen-crane', 'keen-otter'].entries()) writeRun(storage, { id: `grpo:tiny:${name}:1`, created: i })
    expect(runIn(storage, 'crane').id).toBe('grpo:tiny:keen-crane:1')
    expect(runIn(storage, 'last').id).toBe('grpo:tiny:keen-otter:1')
    expect(() => runIn(storage, 'keen')).toThrow(/may be any of grpo:tiny:keen-otter:1, grpo:tiny:keen-crane:1/)
    expect(() => runIn(storage, 'keen-crone')).toThrow(/Did you mean "keen-crane"\?/)
  })

  it('differ in the options that are not shared, nested ones by their path', () => {
    const storage = freshStorage()
    const lora = (r: number) => ({ lora_config: { r, lora_alpha: 32 }, loss_type: 'dapo' })
    const a = new StoredRun(writeRun(storage, { id: 'grpo:a:a:1', options: { ...lora(8), seed: 1 } }))
    const b = new StoredRun(writeRun(storage, { id: 'grpo:b:b:1', options: lora(16) }))
    expect(differences([a, b])).toEqual({ 'lora_config.r': ['8', '16'], seed: ['1', ''] })
  })
})

describe('in a notebook', () => {
  const ft = [0.9, 0.5].map((loss, i) => ({ step: i + 1, loss, seconds: 2 })) as never

  it('a run is a data frame of its steps, with a column for everything that any step has', async () => {
    const steps = [
      { reward: 0.2, validation_score: 40 },
      { reward: 0.6, entropy_coef: 0.1 },
    ]
    const frame = await new Run(writeRun(freshStorage(), { id: ID, steps })).frame()
    expect(frame.shape[0]).toBe(2)
    expect(frame.column('reward').values).toEqual([0.2, 0.6])
    expect(frame.column('validation_score').values).toEqual([40, Number.NaN])
    expect(frame.column('entropy_coef').values).toEqual([Number.NaN, 0.1])
  })

  it('runs are a table, a data frame and a plot with a line each', async () => {
    const storage = freshStorage()
    writeRun(storage, { id: 'grpo:tiny:<b>one:1', steps: REWARDS, created: 1 })
    writeRun(storage, { id: 'grpo:tiny:two:1', steps: REWARDS.slice(1), created: 2 })
    const runs = runsIn(storage)
    const bundle = runs[DISPLAY]()
    expect(bundle['text/html']).toContain('&#60;b&#62;one')
    expect(bundle['text/plain']).toMatch(/grpo:tiny:two:1 +grpo +arbor-tiny +unknown +2 +reward +0\.6 +0\.4/)
    expect((await runs.frame()).column('best').values).toEqual([0.6, 0.6])
    expect(runs.plot({ smooth: 1 }).summary).toBe('reward: grpo:tiny:two:1 0.6 → 0.4, grpo:tiny:<b>one:1 0.2 → 0.4')
    expect(runs.filter(({ id }) => id.includes('two'))).toHaveLength(1)
    expect(compareRuns(runs.slice(0, 1), { measure: 'grad_norm' }).summary).toContain('grad_norm')
    expect(() => runs.plot({ measure: 'rewrd' })).toThrow(/Did you mean "reward"\?/)
    expect(() => compareRuns([])).toThrow(/no runs to compare/)
  })

  it('a fine-tuning run is judged by its loss, where less is better', () => {
    const run = new Run(writeRun(freshStorage(), { id: 'ftjob:tiny:x:1', steps: ft }))
    expect(run.kind).toBe('fine-tuning')
    expect(run.records).toEqual([])
    expect(run.summary()).toMatchObject({ measure: 'loss', first: expect.anything(), steps: 2, seconds: 4 })
    expect(courseOf(run, 'loss').best).toBe(0.5)
    expect(run.plot().summary).toContain('0.9 → 0.5')
  })
})
