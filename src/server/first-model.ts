// A server that was started without a model, as Arbor's is: the first request that names one has it loaded, and all others are then answered
// by the app for that model. Until then there are files, an empty list of models, and words.

import { Hono } from 'hono'
import { z } from 'zod'
import { bareModelName } from '../protocol'
import { docsRoutes } from './docs/docs-routes'
import { FileStore } from './file-store'
import { fileRoutes } from './fine-tuning-routes'
import { healthWithoutModel } from './health'
import { errorResponse, HttpError } from './http-errors'
import { checkOrigin, routePath } from './incoming'
import { pageFileRoutes } from './page-routes'
import { parseBody, readText } from './request-body'
import { RunFolder } from './run-folder'
import type { RouteEnv } from './services'

export type App = (request: Request) => Promise<Response>

/** Routes whose body names the model that answers. */
const NAMING = ['/chat/completions', '/completions', '/chat/launch', '/fine_tuning/grpo/initialize', '/fine_tuning/jobs']
const NamingSchema = z.looseObject({ model: z.string().min(1) })
/** A trained model's name; what may stand behind it (a checkpoint) is no part of the base's. */
const JOB_ID = /^(grpo|ftjob):[^:/@]+:[^:/@]+:\d{8}/

/** @param load makes the app for a base model; called again after it failed */
export function modelOnDemand(storage: string, load: (model: string) => Promise<App>): App {
  const empty = emptyApp(storage)
  let loading: Promise<App> | null = null
  let app: App | null = null
  const loaded = async (model: string): Promise<App> => {
    loading ??= load(baseOf(storage, bareModelName(model)))
    try {
      return (app = await loading)
    } catch (error) {
      loading = null
      throw error
    }
  }
  return async (request) => {
    if (app) return app(request)
    if (request.method !== 'POST' || !NAMING.includes(routePath(request))) return empty(request)
    try {
      checkOrigin(request)
      const body = await readText(request)
      const { model } = parseBody(body, NamingSchema)
      const { url, method, headers, signal } = request
      return (await loaded(model))(new Request(url, { method, headers, body, signal }))
    } catch (error) {
      return errorResponse(error, '')
    }
  }
}

/** The base that a name stands for: a job of an earlier server goes on answering under its own name. */
function baseOf(storage: string, name: string): string {
  const id = name.match(JOB_ID)?.[0]
  if (id === undefined) return name
  const folder = RunFolder.at(storage, id)
  if (!folder.exists)
    throw new HttpError(404, `There is no run "${id}" in ${storage}.`, { code: 'model_not_found', param: 'model' })
  const { base, model } = folder.config() as { base?: string; model: string }
  return baseOf(storage, base ?? bareModelName(model))
}

function emptyApp(storage: string): App {
  const app = new Hono<RouteEnv>({ getPath: routePath })
  app.use(async (c, next) => {
    checkOrigin(c.req.raw)
    await next()
  })
  app.onError((error) => errorResponse(error, ''))
  app.get('/models', (c) => c.json({ object: 'list', data: [] }))
  app.get('/health', (c) => c.json(healthWithoutModel()))
  app.get('/jobs', (c) => c.json({ object: 'list', data: [] }))
  pageFileRoutes(app, null)
  docsRoutes(app)
  app.post('/chat/kill', (c) => c.json({ message: 'No model is loaded.' }))
  fileRoutes(app, new FileStore(storage))
  const nothing = 'No model is loaded here yet: the first chat, launch, initialize or fine-tuning job that names one loads it.'
  app.notFound(() => errorResponse(new HttpError(404, nothing, { code: 'no_model' }), ''))
  return async (request) => app.fetch(request)
}
