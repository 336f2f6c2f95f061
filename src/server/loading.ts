// The server while its model is loaded: the page is there and says so, everything else is asked to come again.

import { Hono } from 'hono'
import type { App } from './first-model'
import { errorResponse, HttpError } from './http-errors'
import { checkOrigin, routePath } from './incoming'
import { pageFileRoutes } from './page-routes'
import type { RouteEnv } from './services'

export function loadingApp(model: string | undefined): App {
  const app = new Hono<RouteEnv>({ getPath: routePath })
  app.use(async (c, next) => {
    checkOrigin(c.req.raw)
    await next()
  })
  app.onError((error) => errorResponse(error, ''))
  pageFileRoutes(app, null)
  const loading = `The model ${model} is being loaded. Ask again in a moment.`
  app.notFound(() => errorResponse(new HttpError(503, loading, { code: 'loading' }), ''))
  return async (request) => app.fetch(request)
}
