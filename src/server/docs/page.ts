// The page at /docs: the OpenAPI document to read, drawn here, with nothing from elsewhere and no script.

import type { OpenApi } from './document'
import { ROUTES, type Route, type SchemaName } from './routes'

type Json = Readonly<Record<string, unknown>>
/** A field of a body, by its path. */
interface Field {
  readonly path: string
  readonly type: string
  readonly required: boolean
  readonly about: string
}

/** @param base the address of this server's routes, for lines to copy */
export function docsPage(document: OpenApi, base: string): string {
  const { title, description, version } = document.info
  const sections = document.tags.map(({ name }) => ({ name, routes: ROUTES.filter(({ tag }) => tag === name) }))
  const links = sections.map(({ name, routes }) => `<h2>${escaped(name)}</h2><ul>${routes.map(link).join('')}</ul>`)
  const bodies = sections.map(({ name, routes }) => {
    const operations = routes.map((route) => operation(route, { schemas: document.components.schemas, base }))
    return `<section><h2>${escaped(name)}</h2>${operations.join('')}</section>`
  })
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>${escaped(title)}: the API</title>
<link rel="icon" href="page/logo-svg.svg" type="image/svg+xml">
<link rel="stylesheet" href="page/docs.css">
</head>
<body>
<nav aria-label="Routes"><p><a href="./">${escaped(title)}</a> ${escaped(version)}</p>${links.join('')}</nav>
<main>
<h1>The API</h1>
<p>${escaped(description)} The same for programs: <a href="openapi.json">openapi.json</a>.</p>
${bodies.join('\n')}
</main>
</body>
</html>
`
}

export function escaped(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;')
}

function anchor({ method, path }: Route): string {
  return `${method}${path}`.replace(/[^a-z]+/gi, '-').replace(/-$/, '')
}

function link(route: Route): string {
  return `<li><a href="#${anchor(route)}"><b class="${route.method}">${route.method.toUpperCase()}</b> ${escaped(route.path)}</a></li>`
}

interface Telling {
  readonly schemas: Readonly<Record<string, object>>
  readonly base: string
}

function operation(route: Route, { schemas, base }: Telling): string {
  const { method, path, summary, takes, gives, streams, query = {} } = route
  const named = (name: string | undefined) => (name !== undefined && name in schemas ? (name as SchemaName) : undefined)
  const table = (name: SchemaName, answer: boolean) => fieldTable(fieldsOf(schemas[name] as Json), { answer })
  const asked = Object.entries(query).map(([name, about]) => ({ path: name, type: 'text', required: false, about }))
  const parts = [
    asked.length > 0 ? `<h4>In the address</h4>${fieldTable(asked)}` : '',
    takes === 'upload'
      ? '<h4>It takes</h4><p>A form (multipart/form-data) with <code>file</code> and <code>purpose</code>.</p>'
      : '',
    named(takes) ? `<h4>It takes</h4>${table(named(takes)!, false)}` : '',
    named(gives) ? `<details><summary>It answers</summary>${table(named(gives)!, true)}</details>` : '',
    streams
      ? `<details><summary>${gives === 'text' ? 'Each event' : 'Each event, with stream'}</summary>${table(streams, true)}</details>`
      : '',
    `<pre>${escaped(example(route, base))}</pre>`,
  ]
  const head = `<h3><b class="${method}">${method.toUpperCase()}</b> <code>/v1${escaped(path)}</code></h3><p>${escaped(summary)}</p>`
  return `<article id="${anchor(route)}">${head}${parts.join('')}</article>`
}

function example({ method, path, takes, query, example: body }: Route, base: string): string {
  const required = Object.keys(query ?? {}).filter((name) => name === 'job_id' || name === 'step')
  const url = `${base}${path.replace('{id}', 'ID')}${required.length > 0 ? `?${required.map((name) => `${name}=…`).join('&')}` : ''}`
  if (takes === 'upload') return `curl ${url} -F purpose=fine-tune -F file=@rows.jsonl`
  if (method === 'get') return `curl '${url}'`
  if (method === 'delete') return `curl -X DELETE '${url}'`
  return `curl ${url} -d '${JSON.stringify(body ?? (takes === 'KillRequest' || takes === undefined ? {} : { job_id: '…' }))}'`
}

/** What may be left out may be null as well, so that isn't told; of an answer nothing is required. */
function fieldTable(fields: readonly Field[], { answer = false } = {}): string {
  const rows = fields.map(({ path, type, required, about }) => {
    const mark = required && !answer ? ' <i>required</i>' : ''
    const shown = required || answer ? type : type.replace(/ or null$/, '')
    return `<tr><td><code>${escaped(path)}</code>${mark}</td><td>${escaped(shown)}</td><td>${escaped(about)}</td></tr>`
  })
  return `<div class="wide"><table><thead><tr><th>field</th><th>type</th><th></th></tr></thead><tbody>${rows.join('')}</tbody></table></div>`
}

/** How deep fields of fields are told. */
const DEPTH = 4

/** A schema's fields, those of objects inside it below them. */
export function fieldsOf(schema: Json, prefix = '', depth = 0): Field[] {
  if (depth > DEPTH) return []
  const required = (schema['required'] ?? []) as readonly string[]
  const properties = Object.entries((schema['properties'] ?? {}) as Record<string, Json>)
  const rank = ([name]: readonly [string, Json]) => (required.includes(name) ? 0 : 1) // what must be there stands first
  return properties
    .sort((a, b) => rank(a) - rank(b))
    .flatMap(([name, field]) => {
      const path = `${prefix}${name}`
      const own = { path, type: typeText(field), required: required.includes(name), about: aboutOf(field) }
      return [own, ...innerFields(field, path, depth)]
    })
}

function innerFields(field: Json, path: string, depth: number): Field[] {
  if (field['items'])
    return [
      ...fieldsOf(field['items'] as Json, `${path}[].`, depth + 1),
      ...innerOfBranches(field['items'] as Json, `${path}[]`, depth),
    ]
  return [...fieldsOf(field, `${path}.`, depth + 1), ...innerOfBranches(field, path, depth)]
}

/** Of several shapes: a field that more than one has is told once, with the types of all; required is what all of them require. */
function innerOfBranches(field: Json, path: string, depth: number): Field[] {
  const shapes = branches(field)
    .map((branch) => innerFields(branch, path, depth))
    .filter((fields) => fields.length > 0)
  const told = new Map<string, Field>()
  for (const one of shapes.flat()) {
    const before = told.get(one.path)
    const types = new Set([...(before?.type.split(' or ') ?? []), ...one.type.split(' or ')])
    const required = shapes.every((fields) => fields.some((other) => other.path === one.path && other.required))
    told.set(one.path, { ...one, type: [...types].join(' or '), required, about: before?.about ? before.about : one.about })
  }
  return [...told.values()]
}

function branches(field: Json): readonly Json[] {
  return (field['anyOf'] ?? field['oneOf'] ?? []) as readonly Json[]
}

function aboutOf(field: Json): string {
  const own = field['description'] as string | undefined
  const inner =
    own ??
    branches(field)
      .map((branch) => branch['description'] as string | undefined)
      .find((text) => text !== undefined)
  const missing = 'default' in field ? `Default: ${JSON.stringify(field['default'])}.` : ''
  return [inner ?? '', missing].filter((text) => text !== '').join(' ')
}

/** A schema's type in a few words. */
export function typeText(field: Json): string {
  if (branches(field).length > 0) return [...new Set(branches(field).map(typeText))].join(' or ')
  if ('const' in field) return JSON.stringify(field['const'])
  if (field['enum']) return (field['enum'] as unknown[]).map((value) => JSON.stringify(value)).join(' or ')
  const { type } = field
  if (Array.isArray(type)) return type.map((one) => typeText({ ...field, type: one })).join(' or ')
  if (type === 'array') return `list of ${field['items'] ? typeText(field['items'] as Json) : 'anything'}`
  if (type === 'string') return field['pattern'] === undefined ? 'text' : `text like ${field['pattern']}`
  if (type === 'integer' || type === 'number') return `${type === 'integer' ? 'whole number' : 'number'}${rangeText(field)}`
  if (type === 'object') return 'object'
  return type === undefined ? 'anything' : type === 'boolean' ? 'true or false' : String(type)
}

function rangeText(field: Json): string {
  const bound = (key: string) => {
    const value = field[key] as number | undefined
    return value === undefined || Math.abs(value) >= Number.MAX_SAFE_INTEGER ? undefined : value
  }
  const low = bound('minimum') ?? bound('exclusiveMinimum')
  const high = bound('maximum') ?? bound('exclusiveMaximum')
  const from = bound('exclusiveMinimum') === undefined ? 'from' : 'above'
  if (low === undefined && high === undefined) return ''
  if (high === undefined) return ` ${from} ${low}`
  return low === undefined ? ` up to ${high}` : ` ${from} ${low} to ${high}`
}
