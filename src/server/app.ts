// The server as a function from a request to its response. Sockets are main.ts's business.

import { randomUUID } from 'node:crypto'
import { type Context, Hono } from 'hono'
import {
  bareModelName,
  ChatRequestSchema,
  CheckpointRequestSchema,
  CompletionRequestSchema,
  InitializeRequestSchema,
  JobRequestSchema,
  KillRequestSchema,
  LaunchRequestSchema,
  RestoreRequestSchema,
  StepRequestSchema,
  TOGETHER,
} from '../protocol'
import { chatBody, planChat } from './chat'
import { streamChat } from './chat-stream'
import { streamCompletions } from './completion-stream'
import { completionBody, planCompletions, sampleCompletions } from './completions'
import { docsRoutes } from './docs/docs-routes'
import { fileRoutes, jobRoutes } from './fine-tuning-routes'
import { healthSource } from './health'
import { errorResponse, HttpError } from './http-errors'
import { checkOrigin, routePath } from './incoming'
import { modelSlug } from './job-id'
import { Moments } from './moments'
import { jobViewRoutes, pageFileRoutes } from './page-routes'
import { readBody } from './request-body'
import { sampleChoices } from './sample'
import { listedNames, type RouteEnv, type Services, servedJob } from './services'
import { type StepStreamOptions, streamSteps } from './step-stream'

/** All routes, under /v1 and at the root; repeated slashes count as one. */
export function createApp(services: Services): (request: Request) => Promise<Response> {
  const app = appOf(services)
  return async (request) => app.fetch(request)
}

/** The same, as hono has it. */
export function appOf(services: Services): Hono<RouteEnv> {
  const app = new Hono<RouteEnv>({ getPath: routePath })
  app.use(async (c, next) => {
    c.set('requestId', randomUUID())
    checkOrigin(c.req.raw)
    await next()
    c.res.headers.set('x-request-id', c.get('requestId'))
  })
  app.onError((error, c) => {
    const response = errorResponse(error, c.get('requestId'))
    if (response.status >= 500)
      services.log?.(`Request ${c.get('requestId')} (${c.req.method} ${c.req.path}): ${error.stack ?? error.message}`)
    return response
  })
  app.notFound((c) => {
    const lost = new HttpError(404, `There is nothing at ${c.req.method} ${c.req.path}.`, { code: 'not_found' })
    return errorResponse(lost, c.get('requestId'))
  })
  modelRoutes(app, services)
  chatRoutes(app, services)
  grpoRoutes(app, services)
  fileRoutes(app, services.fineTuning.files)
  jobRoutes(app, services)
  pageFileRoutes(app, services.modelNames[0]!)
  jobViewRoutes(app, services)
  docsRoutes(app)
  return app
}

function modelRoutes(app: Hono<RouteEnv>, services: Services): void {
  const created = Math.floor(Date.now() / 1000)
  const entry = (id: string) => ({ id, object: 'model', created, owned_by: 'arbor-nb' })
  app.get('/models', (c) => c.json({ object: 'list', data: listedNames(services).map(entry) }))
  app.get('/models/:id{.+}', (c) => {
    const id = bareModelName(c.req.param('id'))
    if (services.modelNames.includes(id) || servedJob(services, id)) return c.json(entry(id))
    throw new HttpError(404, `The model "${id}" is not served here.`, { code: 'model_not_found', param: 'model' })
  })
  const health = healthSource(services)
  app.get('/health', async (c) => c.json(await health()))
}

function chatRoutes(app: Hono<RouteEnv>, services: Services): void {
  const moments = new Moments()
  app.post('/chat/completions', async (c) => {
    let others: Promise<void> | undefined
    const body = await readBody(c.req.raw, ChatRequestSchema).finally(() => {
      others = moments.arrived(c.req.raw.headers.get(TOGETHER)) // a bad one, too: the others are not to wait for it
    })
    const plan = planChat(services, body)
    const { signal } = c.req.raw
    await others
    if (plan.request.stream === true) return streamChat(services, plan, { signal, requestId: c.get('requestId') })
    return c.json(chatBody(services, plan, await sampleChoices(services, plan, { signal })))
  })
  app.post('/completions', async (c) => {
    const plan = planCompletions(services, await readBody(c.req.raw, CompletionRequestSchema))
    const { signal } = c.req.raw
    if (plan.request.stream === true) return streamCompletions(services, plan, { signal, requestId: c.get('requestId') })
    return c.json(await completionBody(services, plan, await sampleCompletions(services, plan, { signal })))
  })
  // The model is loaded with the server, so launching is agreeing on its name and killing it is nothing to do.
  app.post('/chat/launch', async (c) => {
    const { model } = await readBody(c.req.raw, LaunchRequestSchema)
    const bare = bareModelName(model)
    if (!services.modelNames.includes(bare) && !servedJob(services, bare))
      throw new HttpError(404, `This server has the base model "${services.modelNames[0]}", not "${bare}".`, {
        code: 'model_not_found',
        param: 'model',
      })
    return c.json({ message: 'Inference server launched', job_id: inferenceId(bare), model: bare })
  })
  app.post('/chat/kill', async (c) => {
    const { job_id: id } = await readBody(c.req.raw, KillRequestSchema)
    if (id === undefined || id === '*')
      return c.json({ message: 'The model is idle; it answers again at the next chat request.' })
    if (!id.startsWith('infer:'))
      throw new HttpError(400, `No inference job "${id}".`, { code: 'job_not_found', param: 'job_id' })
    return c.json({ message: `Inference job ${id} is idle.`, job_id: id, aliases: [] })
  })
}

function inferenceId(model: string): string {
  return `infer:${modelSlug(model)}:${new Date().toISOString().slice(0, 10).replaceAll('-', '')}`
}

function grpoRoutes(app: Hono<RouteEnv>, { jobs, earlier }: Services): void {
  const grpo = '/fine_tuning/grpo'
  app.post(`${grpo}/initialize`, async (c) =>
    c.json((await jobs.initialize(await readBody(c.req.raw, InitializeRequestSchema))).answer()),
  )
  app.post(`${grpo}/status`, async (c) => c.json(jobs.get((await readBody(c.req.raw, JobRequestSchema)).job_id).asked()))
  app.post(`${grpo}/step`, async (c) => {
    const step = await readBody(c.req.raw, StepRequestSchema)
    return c.json(jobs.get(step.job_id).post(step))
  })
  app.post(`${grpo}/checkpoint`, async (c) => {
    const body = await readBody(c.req.raw, CheckpointRequestSchema)
    return c.json(await jobs.get(body.job_id).checkpoint(body.checkpoint_name, body.metadata ?? null))
  })
  app.post(`${grpo}/restore`, async (c) => {
    const body = await readBody(c.req.raw, RestoreRequestSchema)
    return c.json(await jobs.get(body.job_id).restore(body.checkpoint_name))
  })
  app.post(`${grpo}/terminate`, async (c) =>
    c.json(await jobs.get((await readBody(c.req.raw, JobRequestSchema)).job_id).terminate()),
  )
  app.post(`${grpo}/cancel`, async (c) => {
    const { job_id: id } = await readBody(c.req.raw, JobRequestSchema)
    const job = jobs.find(bareModelName(id))
    if (job?.status === 'running') return c.json(await job.cancel())
    throw new HttpError(404, job ? `Job ${id} has ended (${job.status}).` : `No job "${id}" in this server.`, {
      code: 'job_not_found',
      param: 'job_id',
    })
  })
  app.get(`${grpo}/steps`, (c) => {
    const id = c.req.query('job_id') ?? ''
    const job = jobs.find(bareModelName(id)) ?? earlier.recorded(id) ?? jobs.get(id) // the last one says what there is
    return streamSteps(job, stepQuery(c))
  })
}

/** `after`, or for a browser that lost the connection the last event it had; `texts=0` leaves the completions out. */
function stepQuery(c: Context<RouteEnv>): StepStreamOptions {
  const text = c.req.header('last-event-id') ?? c.req.query('after') ?? '0'
  const after = Number(text)
  if (!(Number.isInteger(after) && after >= 0))
    throw new HttpError(400, `after is "${text}"; a step number (0 for all) is needed.`, { param: 'after' })
  return { after, texts: c.req.query('texts') !== '0', signal: c.req.raw.signal }
}
