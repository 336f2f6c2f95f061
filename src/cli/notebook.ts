// Notebook files (nbformat 4): read with checks, outputs added, written back whole or not at all.

import { readFile, rename, writeFile } from 'node:fs/promises'
import { z } from 'zod'
import { ArborError } from '../errors'

const MultilineSchema = z
  .union([z.string(), z.array(z.string())])
  .transform((text) => (Array.isArray(text) ? text.join('') : text))

/** MIME type → text, or JSON for types that end in +json. */
export type Bundle = Record<string, unknown>

export type StreamOutput = { output_type: 'stream'; name: 'stdout' | 'stderr'; text: string }
export type DisplayOutput = { output_type: 'display_data'; data: Bundle; metadata: Record<string, unknown> }
export type ResultOutput = Omit<DisplayOutput, 'output_type'> & { output_type: 'execute_result'; execution_count: number }
export type ErrorOutput = { output_type: 'error'; ename: string; evalue: string; traceback: string[] }
export type Output = StreamOutput | DisplayOutput | ResultOutput | ErrorOutput

const DataSchema = z
  .record(z.string(), z.unknown())
  .transform((data) => Object.fromEntries(Object.entries(data).map(([mime, content]) => [mime, joined(mime, content)])))
const metadata = z.record(z.string(), z.unknown()).default({})
const OutputSchema = z.discriminatedUnion('output_type', [
  z.object({ output_type: z.literal('stream'), name: z.enum(['stdout', 'stderr']), text: MultilineSchema }),
  z.object({ output_type: z.literal('display_data'), data: DataSchema, metadata }),
  z.object({
    output_type: z.literal('execute_result'),
    data: DataSchema,
    metadata,
    execution_count: z
      .int()
      .nullable()
      .transform((n) => n ?? 0),
  }),
  z.object({ output_type: z.literal('error'), ename: z.string(), evalue: z.string(), traceback: z.array(z.string()) }),
])
const common = { id: z.string().optional(), metadata, source: MultilineSchema }
const CodeCellSchema = z.looseObject({
  ...common,
  cell_type: z.literal('code'),
  execution_count: z.int().nullable().default(null),
  outputs: z.array(OutputSchema).default([]),
})
const TextCellSchema = z.looseObject({ ...common, cell_type: z.enum(['markdown', 'raw']) })
const NotebookSchema = z.looseObject({
  nbformat: z.literal(4, 'only nbformat 4 is read; save the notebook with a current Jupyter'),
  nbformat_minor: z.int(),
  metadata,
  cells: z.array(z.discriminatedUnion('cell_type', [CodeCellSchema, TextCellSchema])),
})

export type CodeCell = z.infer<typeof CodeCellSchema> & { outputs: Output[] }
export type TextCell = z.infer<typeof TextCellSchema>
export type Cell = CodeCell | TextCell
export type Notebook = {
  nbformat: 4
  nbformat_minor: number
  metadata: Record<string, unknown>
  cells: Cell[]
  [key: string]: unknown
}

/** Reads a notebook. ArborError, with what is wrong, when the file isn't one. */
export async function readNotebook(path: string): Promise<Notebook> {
  const text = await readFile(path, 'utf8').catch((cause: Error) => {
    throw new ArborError(`Can't read the notebook ${path}: ${cause.message}`, { code: 'notebook_error', cause })
  })
  return parseNotebook(text, path)
}

/** The notebook in `text`; `name` is for the message. */
export function parseNotebook(text: string, name: string): Notebook {
  let json: unknown
  try {
    json = JSON.parse(text)
  } catch (cause) {
    const { message } = cause as Error
    throw new ArborError(`${name} is not a notebook: it holds no valid JSON (${message})`, { code: 'notebook_error', cause })
  }
  const parsed = NotebookSchema.safeParse(json)
  if (!parsed.success)
    throw new ArborError(`${name} is not a notebook that can be run:\n${z.prettifyError(parsed.error)}`, {
      code: 'notebook_error',
    })
  return parsed.data as Notebook
}

/** Writes to a temporary name beside `path` and renames, so nobody ever sees half a notebook. */
export async function writeAtomically(path: string, text: string): Promise<void> {
  const partial = `${path}.${process.pid}.partial`
  await writeFile(partial, text)
  await rename(partial, path)
}

/** As Jupyter writes it: one space of indentation, sorted keys, texts as lists of lines. */
export function formatNotebook(notebook: Notebook): string {
  const cells = notebook.cells.map((cell) => {
    const source = lines(cell.source)
    return isCode(cell) ? { ...cell, source, outputs: cell.outputs.map(formatOutput) } : { ...cell, source }
  })
  return `${JSON.stringify({ ...notebook, cells }, sortKeys, 1)}\n`
}

function sortKeys(_key: string, value: unknown): unknown {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return value
  return Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)))
}

export function isCode(cell: Cell): cell is CodeCell {
  return cell.cell_type === 'code'
}

export function hasTag(cell: Cell, tag: string): boolean {
  const { tags } = cell.metadata
  return Array.isArray(tags) && tags.includes(tag)
}

function formatOutput(output: Output): object {
  if (output.output_type === 'stream') return { ...output, text: lines(output.text) }
  if (output.output_type === 'error') return output
  const data = Object.entries(output.data).map(([mime, content]) => [
    mime,
    typeof content === 'string' ? lines(content) : content,
  ])
  return { ...output, data: Object.fromEntries(data) }
}

function joined(mime: string, content: unknown): unknown {
  const text = Array.isArray(content) && !mime.endsWith('+json') && content.every((line) => typeof line === 'string')
  return text ? (content as string[]).join('') : content
}

function lines(text: string): string[] {
  return text === '' ? [] : text.split(/(?<=\n)/)
}
