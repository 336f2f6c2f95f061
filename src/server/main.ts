// The server on a socket: model, engine, port, and an end that loses nothing.

import type { Server } from 'node:http'
import { createAdaptorServer } from '@hono/node-server'
import type { Engine } from '../engine/engine'
import { type ResolvedModel, resolveModel } from '../engine/model-source'
import { WorkerEngine } from '../engine/worker-engine'
import { OptionError } from '../errors'
import { bareModelName } from '../protocol'
import { createApp } from './app'
import { CompletionStore } from './completion-store'
import { Jobs } from './jobs'
import { type Services, textCodec } from './services'
import { loadTokenizer } from './tokenizer'

/** Arbor's first port; the next free one is taken when it is in use and none was asked for. */
const FIRST_PORT = 7453
const PORTS_TRIED = 100

export interface ServerOptions {
  /** A hub name, a folder or a GGUF file. */
  readonly model: string
  readonly device?: 'auto' | 'cpu' | 'cuda' | 'tfjs'
  /** Default 127.0.0.1: this machine only. */
  readonly host?: string
  /** Default: the first free one from 7453 up. */
  readonly port?: number
  /** Runs are kept in `runs/` under this folder. */
  readonly storage: string
  /** This package's version, for the files of a run. */
  readonly version: string
  /** Instead of one in a worker thread. */
  readonly engine?: Engine
  /** Hears what is being loaded, a line each. */
  readonly log?: (line: string) => void
  /** Bytes so far and in all, while a model is fetched. */
  readonly progress?: (bytes: number, total: number) => void
}

export interface RunningServer {
  /** http://HOST:PORT/v1/ */
  readonly baseUrl: string
  readonly host: string
  readonly port: number
  /** Ends connections, checkpoints the jobs that run, closes the engine. */
  close(): Promise<void>
}

/**
 * Binds the port first (a taken one is told before a model is loaded; until then requests get 503), then loads the model.
 * @throws OptionError for a taken port, ModelError for a model that cannot be had
 */
export async function startServer(options: ServerOptions): Promise<RunningServer> {
  const host = options.host ?? '127.0.0.1'
  let app = async (_request: Request): Promise<Response> =>
    new Response('{"error":{"message":"loading the model"}}', { status: 503 })
  const server = createAdaptorServer({ fetch: (request) => app(request), overrideGlobalObjects: false }) as Server
  const port = await listen(server, host, options.port)
  const engine = options.engine ?? new WorkerEngine({ device: options.device ?? 'auto' })
  let services: Services
  try {
    services = await loadServices(engine, options)
  } catch (error) {
    await Promise.allSettled([closeSocket(server), engine.close()])
    throw error
  }
  app = createApp(services)
  const close = async () => {
    await closeSocket(server)
    await services.jobs.interrupt()
    await engine.close()
  }
  return { baseUrl: `http://${host.includes(':') ? `[${host}]` : host}:${port}/v1/`, host, port, close }
}

async function loadServices(engine: Engine, options: ServerOptions): Promise<Services> {
  const name = bareModelName(options.model)
  const source: ResolvedModel = await resolveModel(name, { log: options.log, progress: options.progress })
  options.log?.(`Loading ${source.name} (${source.origin}) …`)
  const [model, tokenizer] = await Promise.all([engine.load(source), loadTokenizer(source)])
  options.log?.(`${model.name}: ${(model.parameters / 1e6).toFixed(0)} M parameters on ${model.deviceDescription}`)
  const codec = textCodec(tokenizer, model)
  const completions = new CompletionStore()
  const modelNames = [...new Set([name, source.name, model.name])]
  const { storage, version } = options
  const jobs = new Jobs({ engine, model, modelNames, codec, completions, storage, version })
  return { engine, model, modelNames, codec, completions, jobs }
}

/** The port bound: `wanted`, else the first free one. */
async function listen(server: Server, host: string, wanted: number | undefined): Promise<number> {
  const first = wanted ?? FIRST_PORT
  const last = wanted ?? FIRST_PORT + PORTS_TRIED - 1
  for (let port = first; port <= last; port++) if (await tryListen(server, host, port)) return boundPort(server)
  if (wanted === undefined) throw new OptionError(`All ports from ${first} to ${last} are taken. Give one with --port.`)
  throw new OptionError(`Port ${wanted} is taken by another program. Give another --port, or none to take the next free one.`)
}

/** False when the port is taken; other failures (a host that is not this machine's) are errors. */
function tryListen(server: Server, host: string, port: number): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const failed = (error: NodeJS.ErrnoException) => {
      server.off('listening', bound)
      if (error.code === 'EADDRINUSE') resolve(false)
      else reject(new OptionError(`The server cannot listen on ${host}:${port}: ${error.message}.`, { cause: error }))
    }
    const bound = () => {
      server.off('error', failed)
      resolve(true)
    }
    server.once('error', failed)
    server.once('listening', bound)
    server.listen(port, host)
  })
}

function boundPort(server: Server): number {
  const address = server.address()
  return typeof address === 'object' && address !== null ? address.port : 0
}

/** Streams that wait for a record would keep the socket open for ever, so connections are ended, not waited for. */
function closeSocket(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve())
    server.closeAllConnections()
  })
}
