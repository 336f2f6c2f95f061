// openai-python uploads, fine-tunes, pages through events and cancels on our server, and makes its own errors of our answers.

import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import type { ServerInfo } from '../../src/optimize'
import type { FineTuningEvent, FineTuningJobObject } from '../../src/protocol'
import { serve, whyNot } from '../e2e/tiny'
import { MODEL_NAME, testRows } from './data'
import { noPeers, python, SLOW } from './python'

interface Failure {
  readonly type: string
  readonly status: number
  readonly body: { readonly message: string; readonly type: string; readonly code: string; readonly param: string | null }
}

interface Answer {
  readonly trained: {
    readonly first: string
    readonly job: FineTuningJobObject
    readonly paged: string[]
    readonly whole: FineTuningEvent[]
    readonly content: string
    readonly answer: string
  }
  readonly cancelled: {
    readonly at_once: string
    readonly in_the_end: string
    readonly deleted: boolean
    readonly again: Failure
  }
  readonly jobs: string[]
  readonly files: string[]
  readonly models: string[]
  readonly model: string
  readonly errors: Record<string, Failure | null>
}

const ROWS = 4
const EPOCHS = 30
let missing: string | null
let server: ServerInfo
let answer: Answer
beforeAll(async () => {
  missing = noPeers() ?? (await whyNot())
  if (missing !== null) return
  server = await serve({ model: MODEL_NAME })
  answer = await python<Answer>('openai_jobs.py', {
    base_url: server.baseUrl,
    model: MODEL_NAME,
    rows: (await testRows(ROWS)).map(({ question }, i) => ({ question, answer: `The rule is number ${i}.` })),
    hyperparameters: { n_epochs: EPOCHS, batch_size: 'auto', learning_rate: 2e-3, use_peft: true },
  })
}, SLOW)
beforeEach(({ skip }) => skip(missing !== null, missing ?? ''))
afterAll(() => server?.close())

describe('a fine-tuning job', () => {
  it('goes from queued to succeeded, named by its suffix, and answers as it was taught', () => {
    const { first, job, answer: said } = answer.trained
    expect(['queued', 'validating_files', 'running']).toContain(first)
    expect(job).toMatchObject({ status: 'succeeded', fine_tuned_model: job.id, error: null, object: 'fine_tuning.job' })
    expect(job.id).toMatch(/^ftjob:arbor-tiny:taught:\d{8}$/)
    expect(job.hyperparameters).toMatchObject({ n_epochs: EPOCHS, batch_size: 8, learning_rate: 2e-3 })
    expect(said).toBe('The rule is number 0.')
  })

  it('tells all its events, oldest first, and in pages the newest first', () => {
    const { whole, paged } = answer.trained
    expect(whole.filter(({ type }) => type === 'metrics')).toHaveLength(EPOCHS)
    expect(whole[0]!.message).toMatch(/^Created job/)
    expect(whole.at(-1)!.message).toMatch(/^Trained/)
    expect(paged).toEqual(whole.map(({ id }) => id).reverse())
  })

  it('can be cancelled once', () => {
    const { at_once, in_the_end, again } = answer.cancelled
    expect(['cancelled', 'pending_cancel']).toContain(at_once)
    expect(in_the_end).toBe('cancelled')
    expect(again).toMatchObject({ type: 'BadRequestError', status: 400, body: { code: 'job_ended' } })
  })
})

describe('lists', () => {
  it('hold the jobs, the files that were not deleted, and the models by name', () => {
    expect(answer.jobs).toHaveLength(2)
    expect(answer.jobs[1]).toBe(answer.trained.job.id)
    expect([answer.files, answer.cancelled.deleted]).toEqual([['train.jsonl'], true])
    expect(answer.trained.content.trim().split('\n')).toHaveLength(ROWS)
    expect(answer.models).toEqual(expect.arrayContaining([MODEL_NAME, answer.trained.job.id]))
    expect(answer.model).toBe(answer.trained.job.id)
  })
})

describe('errors', () => {
  it.each([
    ['no job', 'NotFoundError', 404, /No job "ftjob:nobody"/],
    ['no file', 'NotFoundError', 404, /No file "file-0"/],
    ['no model', 'NotFoundError', 404, /"some\/body" is not served here/],
    ['no such file to train on', 'NotFoundError', 404, /No file "file-0"/],
    ['a wrong option', 'UnprocessableEntityError', 422, /did you mean "learning_rate"/],
    ['a wrong file', 'BadRequestError', 400, /line 1: no list "messages"/],
  ])('%s: %s', (name, type, status, words) => {
    const error = answer.errors[name]!
    expect([error.type, error.status]).toEqual([type, status])
    expect(error.body.message).toMatch(words)
    expect(error.body.type).toBe('invalid_request_error')
  })
})
