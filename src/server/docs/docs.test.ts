import { describe, expect, it } from 'vitest'
import { z } from 'zod'
import { appOf } from '../app'
import { initialize, MODEL, testApp } from '../fixture'
import {
  ChatChunkSchema,
  ChatCompletionSchema,
  CompletionSchema,
  ErrorSchema,
  FileSchema,
  FineTuningJobSchema,
  listOf,
  ModelSchema,
} from './answers'
import { type OpenApi, openApi } from './document'
import { docsPage, escaped, fieldsOf, typeText } from './page'

const document = openApi('1.2.3')
const messages = [{ role: 'user', content: 'hi' }]

describe('the OpenAPI document', () => {
  it('has every route of the app, and no other', async () => {
    const { services } = await testApp()
    const own = ['/', '/page/{name}', '/docs', '/openapi.json'] // pages
    const routes = appOf(services)
      .routes.filter(({ method }) => method !== 'ALL')
      .map(({ method, path }) => `${method.toLowerCase()} ${path.replace(/:(\w+)(\{[^}]*\})?/g, '{$1}')}`)
      .filter((route) => !own.includes(route.split(' ')[1]!))
    const told = Object.entries(document.paths).flatMap(([path, methods]) =>
      Object.keys(methods).map((method) => `${method} ${path}`),
    )
    expect(told.sort()).toEqual([...new Set(routes)].sort())
  })

  it('has whole references, ids of its own for each operation, and the fields that zod checks', () => {
    const references = [...JSON.stringify(document).matchAll(/"\$ref":"#\/components\/schemas\/(\w+)"/g)].map(([, name]) => name!)
    expect(references.length).toBeGreaterThan(40)
    for (const name of references) expect(document.components.schemas).toHaveProperty(name)
    expect(JSON.stringify(document)).not.toContain('"$ref":"#/$defs')
    const ids = Object.values(document.paths).flatMap((methods) => Object.values(methods).map(({ operationId }) => operationId))
    expect(new Set(ids).size).toBe(ids.length)
    expect(document.components.schemas['ChatRequest']).toMatchObject({
      required: ['model', 'messages'],
      properties: {
        top_logprobs: {
          anyOf: [{ type: 'integer', minimum: 0, maximum: 20 }, { type: 'null' }],
          description: expect.any(String),
        },
      },
    })
    expect(document.components.schemas['InitializeRequest']).toMatchObject({ additionalProperties: false })
  })

  it('is served, with the page, with a model and without', async () => {
    const app = await testApp()
    const served = (await (await app.get('/v1/openapi.json')).json()) as OpenApi
    expect(served).toMatchObject({ openapi: '3.1.0', paths: document.paths })
    const page = await app.get('/docs')
    expect(page.headers.get('content-type')).toMatch(/^text\/html/)
    expect(page.headers.get('content-security-policy')).toContain("default-src 'none'")
  })

  it('answers are what it says', async () => {
    const app = await testApp()
    const { job_id } = await initialize(app)
    const options = { logprobs: true, top_logprobs: 2, n: 2 }
    ChatCompletionSchema.parse(await app.call('/v1/chat/completions', { model: job_id, messages, ...options }))
    ChatCompletionSchema.parse(await app.call('/v1/chat/completions', { model: MODEL, messages, seeds: [1] }))
    CompletionSchema.parse(await app.call('/v1/completions', { model: MODEL, prompt: 'ab', logprobs: 2, echo: true }))
    const streamed = { stream: true, stream_options: { include_usage: true } }
    const events = async (path: string, body: object) =>
      (await (await app.post(path, { model: MODEL, ...streamed, ...body })).text())
        .split('\n\n')
        .flatMap((event) => (event.startsWith('data: {') ? [JSON.parse(event.slice(6))] : []))
    for (const chunk of await events('/v1/chat/completions', { messages, ...options })) ChatChunkSchema.parse(chunk)
    for (const chunk of await events('/v1/completions', { prompt: 'ab', logprobs: 0 })) CompletionSchema.parse(chunk)
    const get = async (path: string) => (await app.get(path)).json()
    listOf(ModelSchema).parse(await get('/v1/models'))
    ModelSchema.parse(await get(`/v1/models/${MODEL}`))
    listOf(FineTuningJobSchema).parse(await get('/v1/fine_tuning/jobs'))
    listOf(FileSchema).parse(await get('/v1/files'))
    ErrorSchema.parse(await get('/v1/files/none'))
    ErrorSchema.parse(await (await app.post('/v1/chat/completions', {})).json())
  })
})

describe('the page of the API', () => {
  const html = docsPage(document, 'http://127.0.0.1:1234/v1')

  it('tells every route, and asks nobody else for anything', () => {
    for (const path of Object.keys(document.paths)) expect(html).toContain(`<code>/v1${path}</code>`)
    expect(html).toContain("curl 'http://127.0.0.1:1234/v1/models/ID'") // this server's address, and nothing that curl would expand
    expect(html).not.toMatch(/<script|(src|href)="(https?:)?\/\//)
    const [ids, links] = [/id="([^"]+)"/g, /href="#([^"]+)"/g].map((pattern) => [...html.matchAll(pattern)].map(([, id]) => id))
    expect(new Set(ids).size).toBe(ids!.length)
    expect(links).toEqual(ids)
  })

  it('shows fields with their types in words, required ones first, those of objects below them', () => {
    const schema = z.toJSONSchema(
      z.object({
        a: z.int().min(1).nullish().describe('how <many>'),
        b: z.array(z.object({ c: z.enum(['x', 'y']).default('x') })),
        d: z.number().gt(0).max(2),
        e: z.union([z.string(), z.array(z.int())]).optional(),
      }),
      { io: 'input' },
    )
    const fields = fieldsOf(schema as Record<string, unknown>).map(({ path, type, required, about }) => [
      path,
      type,
      required,
      about,
    ])
    expect(fields).toEqual([
      ['b', 'list of object', true, ''],
      ['b[].c', '"x" or "y"', false, 'Default: "x".'],
      ['d', 'number above 0 to 2', true, ''],
      ['a', 'whole number from 1 or null', false, 'how <many>'],
      ['e', 'text or list of whole number', false, ''],
    ])
    expect(typeText({})).toBe('anything')
  })

  it('tells a field of several shapes once, with the types of all, and as required where all of them require it', () => {
    const fields = fieldsOf(document.components.schemas['ChatRequest'] as Record<string, unknown>)
    const told = (path: string) => fields.filter((one) => one.path === path).map(({ type, required }) => [type, required])
    expect(told('response_format.type')).toEqual([['"text" or "json_object" or "json_schema"', true]])
    expect(told('response_format.json_schema')).toEqual([['object', false]])
  })

  it('says other types in words, and text as text', () => {
    expect(typeText({ type: ['boolean', 'null'] })).toBe('true or false or null')
    expect(escaped('<a href="x">&')).toBe('&lt;a href=&quot;x&quot;&gt;&amp;')
  })
})
