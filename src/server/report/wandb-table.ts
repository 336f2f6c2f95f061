// A table of a W&B run: a file below files/media, the same rows as an artifact, and the value that a row of history holds for it.

import { createHash } from 'node:crypto'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { bytes, message, varint } from './protobuf'
import { type Entry, mediaFile } from './wandb-records'

type Cell = string | number | boolean | null

export interface WandbTable {
  readonly key: string
  readonly step: number
  readonly columns: readonly string[]
  readonly rows: readonly (readonly Cell[])[]
}

/** A client id is random in wandb; from the run and the rows it is the same when a resumed run writes its log anew. */
const CLIENT_ID_LENGTH = 128

/** Writes the table's files below the run's folder. The records come before the row that holds `entries`. */
export function writeTable(
  table: WandbTable,
  runId: string,
  project: string,
  dir: string,
): { records: Buffer[]; entries: Entry[] } {
  const { key, step, columns, rows } = table
  const media = Buffer.from(JSON.stringify({ columns, data: rows }))
  const sha256 = hash('sha256', media, 'hex')
  const path = `media/table/${key}_${step}_${sha256.slice(0, 20)}.table.json`
  put(join(dir, 'files', path), media)

  const content = Buffer.from(artifactJson(table))
  const local = join(dir, 'artifacts', `${key}_${step}.table.json`)
  put(local, content)
  const sequence = clientId(`${runId} ${key}`)
  const client = clientId(`${runId} ${key} ${step} ${sha256}`)
  const artifact = artifactRecord({ runId, project, key, local, content, client, sequence })

  const value: Record<string, Cell> = {
    _type: 'table-file',
    ncols: columns.length,
    nrows: rows.length,
    path,
    sha256,
    size: media.length,
    log_mode: 'IMMUTABLE',
    artifact_path: `wandb-client-artifact://${client}/${key}.table.json`,
    _latest_artifact_path: `wandb-client-artifact://${sequence}:latest/${key}.table.json`,
  }
  return {
    records: [artifact, mediaFile(path)],
    entries: Object.entries(value).map(([name, item]) => [[key, name], item] as const),
  }
}

interface Artifact {
  readonly runId: string
  readonly project: string
  readonly key: string
  readonly local: string
  readonly content: Buffer
  readonly client: string
  readonly sequence: string
}

function artifactRecord({ runId, project, key, local, content, client, sequence }: Artifact): Buffer {
  const path = `${key}.table.json`
  const digest = hash('md5', content, 'base64')
  const manifestDigest = hash('md5', Buffer.from(`wandb-artifact-manifest-v1\n${path}:${digest}\n`), 'hex')
  const manifest = message(
    12,
    varint(1, 1),
    bytes(2, 'wandb-storage-policy-v1'),
    message(3, bytes(1, 'storageLayout'), bytes(2, '"V2"')),
    message(4, bytes(1, path), bytes(2, digest), varint(4, content.length), bytes(6, local)),
  )
  return message(
    8,
    bytes(1, runId),
    bytes(2, project),
    bytes(4, 'run_table'),
    bytes(5, `run-${runId}-${key}`),
    bytes(6, manifestDigest),
    bytes(11, 'latest'),
    manifest,
    varint(14, true),
    bytes(15, client),
    bytes(16, sequence),
    bytes(20, 'MANIFEST_MD5'),
  )
}

/** The artifact's form of the table: it says the type of each column. */
function artifactJson({ columns, rows }: WandbTable): string {
  const types = columns.map((column, i) => [column, columnType(rows.map((row) => row[i]!))])
  return JSON.stringify({
    _type: 'table',
    column_types: { params: { type_map: Object.fromEntries(types) }, wb_type: 'typedDict' },
    columns,
    data: rows,
    log_mode: 'IMMUTABLE',
    ncols: columns.length,
    nrows: rows.length,
  })
}

/** Every column may have gaps; the types stand in the order of their names. */
function columnType(cells: readonly Cell[]) {
  const known = cells.find((cell) => cell !== null)
  const names = known === undefined || known === null ? ['unknown'] : ['none', typeof known].sort()
  return { params: { allowed_types: names.map((wb_type) => ({ wb_type })) }, wb_type: 'union' }
}

function clientId(of: string): string {
  return hash('sha512', Buffer.from(of), 'hex').slice(0, CLIENT_ID_LENGTH)
}

function hash(algorithm: string, data: Buffer, encoding: 'hex' | 'base64'): string {
  return createHash(algorithm).update(data).digest(encoding)
}

function put(path: string, content: Buffer): void {
  mkdirSync(join(path, '..'), { recursive: true })
  writeFileSync(path, content)
}
