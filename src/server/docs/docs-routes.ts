// `/docs` and `/openapi.json`.

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Hono } from 'hono'
import { packageRoot } from '../../engine/package-root'
import { PAGE_HEADERS } from '../page-files'
import type { RouteEnv } from '../services'
import { type OpenApi, openApi } from './document'
import { docsPage } from './page'

/** Both are made when they are first asked for. */
export function docsRoutes(app: Hono<RouteEnv>): void {
  let document: OpenApi | null = null
  const known = () => (document ??= openApi(packageVersion()))
  app.get('/openapi.json', (c) => c.json(known()))
  app.get('/docs', (c) => c.html(docsPage(known(), `${new URL(c.req.url).origin}/v1`), 200, PAGE_HEADERS))
}

function packageVersion(): string {
  return (JSON.parse(readFileSync(join(packageRoot(), 'package.json'), 'utf8')) as { version: string }).version
}
