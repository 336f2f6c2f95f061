// The OpenAPI document (3.1), from the list of routes and the zod schemas that the routes check with.

import { jsonSchemas, ROUTES, type Route, type SchemaName } from './routes'

export interface OpenApi {
  readonly openapi: '3.1.0'
  readonly info: { readonly title: string; readonly version: string; readonly description: string }
  readonly servers: readonly object[]
  readonly tags: readonly { readonly name: string }[]
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>
  readonly components: { readonly schemas: Readonly<Record<string, object>> }
}

export interface Operation {
  readonly operationId: string
  readonly tags: readonly string[]
  readonly summary: string
  readonly parameters?: readonly Parameter[]
  readonly requestBody?: object
  readonly responses: Readonly<Record<string, object>>
}

interface Parameter {
  readonly name: string
  readonly in: 'path' | 'query'
  readonly required: boolean
  readonly description?: string
  readonly schema: object
}

export function openApi(version: string): OpenApi {
  const paths: Record<string, Record<string, Operation>> = {}
  for (const route of ROUTES) paths[route.path] = { ...paths[route.path], [route.method]: operation(route) }
  return {
    openapi: '3.1.0',
    info: {
      title: 'arbor-nb',
      version,
      description: "OpenAI's API and Arbor's protocol. Every route answers under /v1 and at the root; errors have OpenAI's body.",
    },
    servers: [{ url: '/v1' }],
    tags: [...new Set(ROUTES.map(({ tag }) => tag))].map((name) => ({ name })),
    paths,
    components: { schemas: jsonSchemas() },
  }
}

function operation(route: Route): Operation {
  const { method, path, tag, summary } = route
  const parameters = parametersOf(route)
  return {
    operationId: `${method}${path.replace(/[{}]/g, '').replace(/[/_]+(\w)/g, (_, letter: string) => letter.toUpperCase())}`,
    tags: [tag],
    summary,
    ...(parameters.length > 0 && { parameters }),
    ...(route.takes !== undefined && { requestBody: requestBody(route) }),
    responses: { 200: answer(route), '4XX': { description: 'What is wrong with the request.', content: json('Error') } },
  }
}

function parametersOf({ path, query = {} }: Route): Parameter[] {
  const inPath = [...path.matchAll(/\{(\w+)\}/g)].map(([, name]) => ({ name: name!, in: 'path' as const, required: true }))
  return [
    ...inPath.map((parameter) => ({ ...parameter, schema: { type: 'string' } })),
    ...Object.entries(query).map(([name, description]) => ({
      name,
      in: 'query' as const,
      required: name === 'job_id' || name === 'step',
      description,
      schema: { type: 'string' },
    })),
  ]
}

function requestBody({ takes, example }: Route): object {
  if (takes === 'upload') {
    const properties = { purpose: { type: 'string' }, file: { type: 'string', format: 'binary' } }
    return {
      required: true,
      content: { 'multipart/form-data': { schema: { type: 'object', properties, required: ['file', 'purpose'] } } },
    }
  }
  return { required: takes !== 'KillRequest', content: json(takes as SchemaName, example) }
}

function answer({ gives, streams }: Route): object {
  const events = streams && { 'text/event-stream': { schema: reference(streams) } }
  if (gives === 'text') return { description: 'The answer.', content: events ?? { 'text/plain': { schema: { type: 'string' } } } }
  const body = gives === 'object' ? { 'application/json': { schema: { type: 'object' } } } : json(gives)
  return { description: 'The answer.', content: { ...body, ...events } }
}

function json(name: SchemaName, example?: object): object {
  return { 'application/json': { schema: reference(name), ...(example && { example }) } }
}

function reference(name: SchemaName): object {
  return { $ref: `#/components/schemas/${name}` }
}
