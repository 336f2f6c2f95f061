import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { type JobDetail, JobDetailSchema, type JobSummary, JobSummarySchema, type RolloutGroup } from '../protocol'
import { FaultyEngine, initialize, MODEL, sampledGroup, type TestApp, testApp } from './fixture'

const STEP = '/fine_tuning/grpo/step'

async function json<T>(app: TestApp, path: string): Promise<T> {
  const response = await app.get(path)
  if (response.status !== 200) throw new Error(`${path}: ${response.status} ${await response.text()}`)
  return (await response.json()) as T
}

const jobs = async (app: TestApp) => (await json<{ data: JobSummary[] }>(app, '/jobs')).data
const path = (id: string, rest = '') => `/jobs/${encodeURIComponent(id)}${rest}`

async function trainedJob(app: TestApp, questions: readonly string[]): Promise<string> {
  const { job_id } = await initialize(app, { run_name: 'first' })
  for (const [batch_id, question] of questions.entries())
    await app.call(STEP, { job_id, model: job_id, batch_id, batch: await sampledGroup(app, job_id, question) })
  await app.services.jobs.get(job_id).trained()
  return job_id
}

describe('the jobs of a server', () => {
  it('are listed newest first, each with what it has done and where it lies', async () => {
    const app = await testApp()
    expect(await jobs(app)).toEqual([])
    const id = await trainedJob(app, ['why?', 'who?'])
    await app.call('/fine_tuning/grpo/checkpoint', { job_id: id, checkpoint_name: 'half', metadata: { score: 61.5 } })
    const { job_id: second } = await initialize(app)
    const [newest, first] = (await jobs(app)).map((job) => JobSummarySchema.parse(job))
    expect([newest!.id, newest!.step, newest!.recent]).toEqual([second, 0, []])
    expect(first).toMatchObject({
      id,
      kind: 'grpo',
      status: 'running',
      reason: null,
      model: MODEL,
      serves: true,
      step: 2,
      steps: null, // one group is one update: nobody said how many there will be
      recent: [0.5, 0.5],
      checkpoints: [{ name: 'half', step: 2, time: expect.any(Number), score: 61.5 }],
      folder: join(app.storage, 'runs', id.replaceAll(':', '+')),
    })
  })

  it('tell what was chosen, and how many steps there will be where the client says', async () => {
    const app = await testApp()
    const config = { num_generations: 4, groups_per_step: 2, max_steps: 30, beta: 0, learning_rate: 1e-3 }
    const { job_id } = await initialize(app, { trainer_config: config })
    const detail = JobDetailSchema.parse(await json<JobDetail>(app, path(job_id)))
    expect(detail.steps).toBe(30)
    expect(detail.chosen.sort()).toEqual(Object.keys(config).sort())
    expect(detail.config).toMatchObject({ ...config, loss_type: 'dr_grpo' })
  })

  it('show the rollouts of a step with their prompt, as they lie in the run folder', async () => {
    const app = await testApp()
    const id = await trainedJob(app, ['why?', '<b>who?</b>'])
    const { data } = await json<{ data: RolloutGroup[] }>(app, path(id, '/rollouts?step=2'))
    expect(data).toHaveLength(1)
    expect(data[0]).toMatchObject({ step: 2, title: '<b>who?</b>', messages: [{ role: 'user', content: '<b>who?</b>' }] })
    expect(data[0]!.rollouts.map(({ reward, source }) => [reward, source])).toEqual([
      [1, 'id'],
      [0, 'id'],
      [1, 'id'],
      [0, 'id'],
    ])
    const [, line] = readFileSync(join(app.services.jobs.get(id).setup.folder.path, 'rollouts.jsonl'), 'utf8').split('\n')
    expect(JSON.parse(line!)).toEqual(data[0])
  })

  it('say why one failed', async () => {
    const app = await testApp({ engine: new FaultyEngine() })
    const id = await trainedJob(app, ['why?'])
    expect((await jobs(app)).find((job) => job.id === id)).toMatchObject({
      status: 'failed',
      reason: expect.stringContaining('gone'),
    })
  })

  it('of fine-tuning show their losses, all or those after one', async () => {
    const app = await testApp()
    const form = new FormData()
    const line = JSON.stringify({
      messages: [
        { role: 'user', content: 'q' },
        { role: 'assistant', content: 'a' },
      ],
    })
    form.set('purpose', 'fine-tune')
    form.set('file', new Blob([`${line}\n`.repeat(6)]), 'six.jsonl')
    const uploaded = await app.fetch(new Request('http://localhost/files', { method: 'POST', body: form }))
    const { id: training_file } = (await uploaded.json()) as { id: string }
    const hyperparameters = { n_epochs: 2, batch_size: 2 }
    const { id } = await app.call<{ id: string }>('/fine_tuning/jobs', { model: MODEL, training_file, hyperparameters })
    await app.services.fineTuning.idle()
    const [summary] = (await jobs(app)).map((job) => JobSummarySchema.parse(job))
    expect(summary).toMatchObject({ id, kind: 'sft', status: 'succeeded', step: 6, steps: 6, serves: true })
    expect(summary!.checkpoints.map(({ name }) => name)).toEqual(['checkpoint_final'])
    const losses = async (query: string) => (await json<{ data: { step: number }[] }>(app, path(id, `/losses${query}`))).data
    expect((await losses('')).map(({ step }) => step)).toEqual([1, 2, 3, 4, 5, 6])
    expect((await losses('?after=4')).map(({ step }) => step)).toEqual([5, 6])
    expect(JobDetailSchema.parse(await json(app, path(id))).chosen).toEqual(expect.arrayContaining(['n_epochs', 'batch_size']))
    const later = await testApp({ storage: app.storage })
    const told = async () => (await jobs(later)).map(({ earlier, step, recent }) => [earlier, step, recent.length])
    expect(await told()).toEqual([[true, 6, 6]]) // off its folder: looking opens no weights
    expect((await json<{ data: unknown[] }>(later, path(id, '/losses?after=4'))).data).toHaveLength(2)
    later.services.fineTuning.find(id)
    expect(await told()).toEqual([[false, 6, 6]])
  })

  it('are shown by a later server off their folders: how they ended, their steps, rollouts and options', async () => {
    const app = await testApp()
    const id = await trainedJob(app, ['why?', 'who?'])
    await app.call('/fine_tuning/grpo/checkpoint', { job_id: id, checkpoint_name: 'half', metadata: { score: 61.5 } })
    const later = await testApp({ storage: app.storage })
    const [run] = (await jobs(later)).map((job) => JobSummarySchema.parse(job))
    // Its status says that it runs, in this very process, and it is no job of this server: it was interrupted.
    expect(run).toMatchObject({ id, earlier: true, status: 'interrupted', serves: false, step: 2, recent: [0.5, 0.5] })
    expect(run!.checkpoints).toMatchObject([{ name: 'half', score: 61.5 }])
    const { data } = await json<{ data: RolloutGroup[] }>(later, path(id, '/rollouts?step=2'))
    expect(data.map(({ title }) => title)).toEqual(['who?'])
    const detail = JobDetailSchema.parse(await json<JobDetail>(later, path(id)))
    expect(detail.chosen).toEqual((await json<JobDetail>(app, path(id))).chosen)
    const steps = await (await later.get(`/fine_tuning/grpo/steps?texts=0&job_id=${encodeURIComponent(id)}`)).text()
    expect(steps.match(/^event: \w+$/gm)).toEqual(['event: step', 'event: step', 'event: end'])
    await app.call('/fine_tuning/grpo/terminate', { job_id: id })
    expect((await jobs(later))[0]).toMatchObject({ id, status: 'succeeded' })
  })

  it('of other servers are not shown while those train them, nor is a folder that can not be read', async () => {
    const app = await testApp()
    const id = await trainedJob(app, ['why?'])
    const later = await testApp({ storage: app.storage })
    const file = join(app.storage, 'runs', id.replaceAll(':', '+'), 'status.json')
    writeFileSync(file, JSON.stringify({ status: 'running', reason: null, pid: process.ppid }))
    expect(await jobs(later)).toEqual([])
    writeFileSync(file, '{')
    expect(await jobs(later)).toEqual([])
    writeFileSync(file, JSON.stringify({ status: 'failed', reason: 'the disk is full', pid: process.ppid }))
    expect(await jobs(later)).toMatchObject([{ id, status: 'failed', reason: 'the disk is full' }])
  })

  it('that are not there, and steps that were not made, are a 404 with words; no number is a 400', async () => {
    const app = await testApp()
    const id = await trainedJob(app, ['why?'])
    const status = async (url: string) => (await app.get(url)).status
    expect(await status(path('grpo:none'))).toBe(404)
    expect(await status(path(id, '/rollouts?step=7'))).toBe(404)
    expect(await status(path(id, '/losses'))).toBe(404)
    for (const query of ['', '?step=', '?step=-1', '?step=one', '?step=1e9', `?step=${'9'.repeat(40)}`])
      expect([query, await status(path(id, `/rollouts${query}`))]).toEqual([query, 400])
    const wrong = (await (await app.get(path(id, '/rollouts?step=7'))).json()) as { error: { message: string } }
    expect(wrong.error.message).toContain('no rollouts of step 7; it has made 1 steps')
  })
})

describe('the page', () => {
  const open = (app: TestApp, url: string, headers: Record<string, string> = { accept: 'text/html,*/*' }) =>
    app.fetch(new Request(`http://localhost${url}`, { headers }))

  it('is HTML for a browser, under a policy that lets only its own files run, and links for a program', async () => {
    const app = await testApp()
    for (const url of ['/', '/v1', '/v1/']) {
      const page = await open(app, url)
      expect(page.headers.get('content-type')).toBe('text/html; charset=utf-8')
      const policy = page.headers.get('content-security-policy')!
      expect(policy).toContain("default-src 'none'; script-src 'self'; style-src 'self'")
      expect(policy).not.toContain('unsafe')
    }
    expect(await (await open(app, '/', { accept: '*/*' })).json()).toMatchObject({ name: 'arbor-nb', model: MODEL })
  })

  it('finds every file that it names, none holds an address elsewhere, and one that is known is not sent again', async () => {
    const app = await testApp()
    const seen = new Map<string, string>()
    const visit = async (name: string): Promise<void> => {
      if (seen.has(name)) return
      const response = await open(app, name)
      expect([name, response.status]).toEqual([name, 200])
      const text = await response.text()
      seen.set(name, text)
      const again = await open(app, name, { accept: 'text/html', 'if-none-match': response.headers.get('etag')! })
      expect([name, again.status, await again.text()]).toEqual([name, 304, ''])
      for (const [, found] of text.matchAll(/(?:href|src)="(page\/[^"]+)"/g)) await visit(`/${found}`)
      for (const [, found] of text.matchAll(/from '\.\/([\w-]+\.js)'/g)) await visit(`/page/${found}`)
    }
    await visit('/')
    expect(seen.size).toBeGreaterThan(15)
    for (const [name, text] of seen)
      expect([name, [...text.matchAll(/https?:\/\/(?!www\.w3\.org\/2000\/svg)[^\s'"]+/g)].map(String)]).toEqual([name, []])
  })

  it('gives out nothing but its own files', async () => {
    const app = await testApp()
    for (const name of ['..%2fapp.ts', '%2e%2e%2fpackage.json', 'main.ts', 'tsconfig.json', '', 'constructor', 'scale.test.js'])
      expect([name, (await open(app, `/page/${name}`)).status]).toEqual([name, 404])
  })
})
