// Stands in for W&B's servers on the loopback address: accepts what wandb's client sends and keeps it.

import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { gunzipSync } from 'node:zlib'

export interface WandbCloud {
  readonly url: string
  /** Rows of history in the order of their lines. */
  readonly history: Record<string, unknown>[]
  /** Bodies of uploaded files, by path. */
  readonly files: Map<string, Buffer>
  /** The variables of every call, by the call's name. */
  readonly calls: Map<string, Record<string, unknown>[]>
  /** What ended the run. */
  exit: { readonly complete: boolean; readonly exitcode: number } | null
  close(): void
}

type Variables = Record<string, unknown>

export async function wandbCloud(): Promise<WandbCloud> {
  const server = createServer(async (request, response) => {
    const body = await bodyOf(request)
    response.setHeader('content-type', 'application/json')
    response.end(JSON.stringify(answer(cloud, request.url ?? '', body)))
  })
  await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening))
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const cloud: WandbCloud = { url, history: [], files: new Map(), calls: new Map(), exit: null, close: () => server.close() }
  return cloud
}

async function bodyOf(request: AsyncIterable<Buffer> & { headers: Record<string, unknown> }): Promise<Buffer> {
  const parts: Buffer[] = []
  for await (const part of request) parts.push(part)
  const body = Buffer.concat(parts)
  return request.headers['content-encoding'] === 'gzip' ? gunzipSync(body) : body
}

function answer(cloud: WandbCloud, path: string, body: Buffer): unknown {
  if (path === '/graphql') return { data: graphql(cloud, JSON.parse(String(body)) as { query: string; variables?: Variables }) }
  if (path.endsWith('/file_stream')) return stream(cloud, JSON.parse(String(body)) as Stream)
  if (path.startsWith('/upload/')) cloud.files.set(decodeURIComponent(path.slice('/upload/'.length)), body)
  return {}
}

interface Stream {
  readonly files?: Record<string, { readonly offset: number; readonly content: readonly string[] }>
  readonly complete?: boolean
  readonly exitcode?: number
}

function stream(cloud: WandbCloud, { files = {}, complete, exitcode }: Stream): unknown {
  const lines = files['wandb-history.jsonl']
  lines?.content.forEach((line, i) => {
    cloud.history[lines.offset + i] = JSON.parse(line) as Record<string, unknown>
  })
  if (complete !== undefined && exitcode !== undefined) cloud.exit = { complete, exitcode }
  return { limits: {} }
}

function graphql(cloud: WandbCloud, { query, variables = {} }: { query: string; variables?: Variables }): unknown {
  const name = /(?:query|mutation)\s+(\w+)/.exec(query)?.[1] ?? ''
  cloud.calls.set(name, [...(cloud.calls.get(name) ?? []), variables])
  const node = (file: { name: string }) => ({
    node: { storagePath: null, uploadUrl: `${cloud.url}/upload/artifact/${file.name}`, uploadHeaders: [], artifact: { id: 'A' } },
  })
  const { name: run, project } = variables as { name: string; project: string }
  const answers: Record<string, () => unknown> = {
    UpsertBucket: () => ({
      upsertBucket: {
        bucket: {
          id: 'B',
          name: run,
          config: '{}',
          historyLineCount: 0,
          project: { id: 'P', name: project, entity: { id: 'E', name: 'me' } },
        },
        inserted: true,
      },
    }),
    CreateRunFiles: () => ({
      createRunFiles: {
        runID: 'B',
        uploadHeaders: [],
        files: (variables['files'] as string[]).map((file) => ({ name: file, uploadUrl: `${cloud.url}/upload/${file}` })),
      },
    }),
    CreateArtifact: () => ({
      createArtifact: { artifact: { id: 'A', state: 'PENDING', artifactSequence: { latestArtifact: null } } },
    }),
    CreateArtifactManifest: () => ({
      createArtifactManifest: {
        artifactManifest: { id: 'M', file: { id: 'F', uploadUrl: `${cloud.url}/upload/manifest`, uploadHeaders: [] } },
      },
    }),
    CreateArtifactFiles: () => ({
      createArtifactFiles: {
        files: { edges: (variables['input'] as { artifactFiles: { name: string }[] }).artifactFiles.map(node) },
      },
    }),
    CommitArtifact: () => ({ commitArtifact: { artifact: { id: 'A', digest: 'D' } } }),
  }
  return answers[name]?.() ?? {}
}
