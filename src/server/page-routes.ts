// The page at `/`, and what it asks for: jobs of both kinds, the rollouts of a step, the losses of a fine-tuning job.

import type { Context, Hono } from 'hono'
import { HttpError } from './http-errors'
import { JobViews } from './job-views'
import { PageFiles } from './page-files'
import type { RouteEnv, Services } from './services'

/** A browser gets the page; a program that knocks at `/` is told where things are. `model` is null until one is loaded. */
export function pageFileRoutes(app: Hono<RouteEnv>, model: string | null): void {
  const files = new PageFiles()
  app.get('/', (c) => {
    if ((c.req.header('accept') ?? '').includes('text/html')) return files.response('index.html', c.req.header('if-none-match'))
    const links = { page: '/', docs: '/docs', models: '/v1/models', jobs: '/jobs', health: '/health' }
    return c.json({ name: 'arbor-nb', model, links }, 200, { vary: 'accept' })
  })
  app.get('/page/:name', (c) => files.response(c.req.param('name'), c.req.header('if-none-match')))
}

/** What the page asks for. */
export function jobViewRoutes(app: Hono<RouteEnv>, services: Services): void {
  const views = new JobViews(services)
  app.get('/jobs', (c) => c.json({ object: 'list', data: views.list() }))
  app.get('/jobs/:id', (c) => c.json(views.detail(c.req.param('id'))))
  app.get('/jobs/:id/rollouts', (c) =>
    c.json({ object: 'list', data: views.rollouts(c.req.param('id'), wholeNumber(c, 'step')) }),
  )
  app.get('/jobs/:id/losses', (c) =>
    c.json({ object: 'list', data: views.losses(c.req.param('id'), wholeNumber(c, 'after', '0')) }),
  )
}

/** @throws HttpError 400 */
function wholeNumber(c: Context<RouteEnv>, name: string, missing?: string): number {
  const text = c.req.query(name) ?? missing
  if (text !== undefined && /^\d{1,9}$/.test(text)) return Number(text)
  throw new HttpError(400, `${name} is ${text === undefined ? 'missing' : `"${text}"`}; a whole number is needed.`, {
    param: name,
  })
}
