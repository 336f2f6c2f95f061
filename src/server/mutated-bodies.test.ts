// Bodies made from the routes' own schemas and then spoilt: whatever comes of it, the answer is JSON, no fault of the server's, and the server goes on.

import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { jsonSchemas, ROUTES } from './docs/routes'
import { initialize, MODEL, sampledGroup, type TestApp, testApp } from './fixture'
import { bodies, type Known, mutated, mutations, spoilt } from './mutate.fixture'

/** Bodies for each route; ARBOR_FUZZ asks for more. */
const RUNS = Number(process.env['ARBOR_FUZZ'] ?? 60)
const PATIENCE_MS = 20_000
const takers = ROUTES.flatMap(({ path, takes }) => (takes && takes !== 'upload' ? [{ path, takes }] : []))

async function known(app: TestApp): Promise<Known> {
  const { job_id } = await initialize(app)
  const group = await sampledGroup(app, job_id, 'Why?')
  return {
    job_id: [job_id],
    model: [MODEL, `openai/arbor:${MODEL}`, job_id],
    batch: [group, [group, group]],
    batch_id: [0, 1, 2],
    checkpoint_name: ['first', 'second'],
    max_tokens: [0, 3, 40],
    run_name: ['run-1', null],
    content: ['Why?', [{ type: 'text', text: 'Why?' }]],
    lora_config: [{ r: 2, lora_alpha: 4 }, null],
    schema: [
      { type: 'object', properties: { a: { enum: [1, 2] } }, required: ['a'] },
      { type: 'array', items: { type: 'boolean' } },
    ],
  }
}

/** Status and body; rejects when none comes. */
async function answer(app: TestApp, path: string, body: string): Promise<{ status: number; text: string }> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer to ${body.slice(0, 2000)}`)), PATIENCE_MS)
  })
  const asked = app.post(`/v1${path}`, body).then(async (response) => ({ status: response.status, text: await response.text() }))
  return Promise.race([asked, late]).finally(() => clearTimeout(timer))
}

function judge({ status, text }: { status: number; text: string }, body: string): void {
  const told = `${body.slice(0, 3000)}\n→ ${status} ${text.slice(0, 500)}`
  if (status === 200) {
    // A stream's error stands in its last event.
    for (const event of text.split('\n').filter((line) => line.startsWith('data: {')))
      if (JSON.parse(event.slice(6)).error?.type === 'server_error') throw new Error(told)
    return
  }
  if (status < 400 || status >= 500) throw new Error(told)
  const { error, detail } = JSON.parse(text) as {
    error: { message: string; type: string; code: string; param: string | null }
    detail: unknown
  }
  if (!(error.message.length > 5 && error.type && error.code && detail)) throw new Error(told)
}

describe('bodies made from the schemas and spoilt', () => {
  it.each(takers)(
    '$path answers each with a 4xx in JSON, or does what it says',
    { timeout: 600_000 },
    async ({ path, takes }) => {
      const app = await testApp()
      const valid = bodies(jsonSchemas()[takes], await known(app))
      const statuses = new Set<number>()
      await fc.assert(
        fc.asyncProperty(valid, fc.array(mutations, { maxLength: 3 }), spoilt, async (body, changes, spoil) => {
          const text = spoil(JSON.stringify(mutated(body, changes)) ?? '')
          const answered = await answer(app, path, text)
          statuses.add(answered.status)
          judge(answered, text)
        }),
        { numRuns: RUNS, seed: Number(process.env['ARBOR_FUZZ_SEED'] ?? 1) },
      )
      expect([...statuses].some((status) => status >= 400)).toBe(true)
      expect((await app.get('/health')).status).toBe(200)
      await app.call('/v1/chat/completions', { model: MODEL, messages: [{ role: 'user', content: 'still there?' }] })
    },
  )
})
