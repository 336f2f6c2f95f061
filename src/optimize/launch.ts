// Starts our server as a process of its own. It ends by itself when the notebook does: its standard input is the owner's pipe.

import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { homedir } from 'node:os'
import { dirname, join } from 'node:path'
import { ArborError } from '../errors'

export interface ServerOptions {
  /** cpu, cuda, tfjs or auto; default: $ARBOR_DEVICE, else auto. */
  readonly device?: 'auto' | 'cpu' | 'cuda' | 'tfjs'
  /** How many GPUs of this machine work together, each with the whole model; default 1. */
  readonly gpus?: number | 'all'
  /** Of frozen weights: f32, bf16 or auto; default: $ARBOR_PRECISION, else bf16 on a GPU and where the CPU computes in it. */
  readonly precision?: 'auto' | 'f32' | 'bf16'
  /** GiB that the server should stay within while it trains, as far as the model's size allows; default 1.5. */
  readonly memory?: number
  readonly host?: string
  /** Default: the first free port from 7453 up, as Arbor does. */
  readonly port?: number
  /** Where runs and checkpoints are kept; default $ARBOR_HOME, else ~/.arbor. */
  readonly storagePath?: string
  /** Receives the server's own lines (model loading, build, warnings). */
  readonly onLog?: (line: string) => void
}

export interface ServerInfo {
  /** http://HOST:PORT/v1/ */
  readonly baseUrl: string
  readonly base_url: string
  /** Jobs, charts and rollouts, live, in a browser. */
  readonly pageUrl: string
  readonly host: string
  readonly port: number
  readonly pid: number
  /** Checkpoints what runs and ends the server; returns when it is gone. */
  close(): Promise<void>
}

/** With every core at work, a collection that waits for its helper threads holds the server up for 35 ms; alone it takes 4. */
const NODE_FLAGS = ['--single-threaded-gc']

const defaults: { options: ServerOptions } = { options: {} }
const servers = new Set<ServerInfo>()

/** Remembers defaults for startServer (device, storage, port). Nothing is started: Arbor's `init` starts a server without a model, ours needs the model's name. */
export async function init(options: ServerOptions = {}): Promise<{ storagePath: string; device: string }> {
  defaults.options = options
  return { storagePath: storagePath(options), device: options.device ?? process.env['ARBOR_DEVICE'] ?? 'auto' }
}

/**
 * Starts a server for one base model and waits until it answers (model fetched and loaded).
 * @throws ArborError with the server's last lines when it ends before it is ready.
 */
export async function startServer(model: string, options: ServerOptions = {}): Promise<ServerInfo> {
  const settings = { ...defaults.options, ...options }
  const args = [...NODE_FLAGS, cliPath(), 'serve', '--model', model, '--owner-pipe', '--ready-line']
  args.push('--storage', storagePath(settings))
  if (settings.device !== undefined) args.push('--device', settings.device)
  if (settings.gpus !== undefined) args.push('--gpus', String(settings.gpus))
  if (settings.precision !== undefined) args.push('--precision', settings.precision)
  if (settings.memory !== undefined) args.push('--memory', String(settings.memory))
  if (settings.host !== undefined) args.push('--host', settings.host)
  if (settings.port !== undefined) args.push('--port', String(settings.port))
  const child = spawn(process.execPath, args, { stdio: ['pipe', 'pipe', 'pipe'] })
  const info = await ready(child, model, settings.onLog)
  servers.add(info)
  return info
}

/** Ends every server that this process started. */
export async function shutdown(): Promise<void> {
  await Promise.all([...servers].map((server) => server.close()))
}

/** The servers that this process started and not yet closed. */
export function status(): readonly ServerInfo[] {
  return [...servers]
}

function ready(child: ChildProcess, model: string, onLog?: (line: string) => void): Promise<ServerInfo> {
  return new Promise((resolve, reject) => {
    const lines: string[] = []
    const exited = new Promise<void>((done) => child.once('exit', () => done()))
    eachLine(child.stderr!, (line) => {
      lines.push(line)
      if (lines.length > 40) lines.shift()
      onLog?.(line)
    })
    child.once('error', (cause) =>
      reject(new ArborError(`The server could not be started: ${cause.message}`, { code: 'server_start', cause })),
    )
    child.once('exit', (code, signal) => {
      const last = lines.slice(-12).join('\n')
      reject(
        new ArborError(`The server for ${model} ended before it was ready (${signal ?? `exit code ${code}`}).\n${last}`, {
          code: 'server_start',
        }),
      )
    })
    eachLine(child.stdout!, (line) => {
      if (!line.startsWith('{')) return
      const { base_url } = JSON.parse(line) as { base_url: string }
      const url = new URL(base_url)
      const info: ServerInfo = {
        baseUrl: base_url,
        base_url,
        pageUrl: new URL('/', url).href,
        host: url.hostname,
        port: Number(url.port),
        pid: child.pid!,
        close: async () => {
          servers.delete(info)
          child.ref() // whoever waits for the end must not be ended by an empty event loop
          child.stdin!.end()
          await exited
        },
      }
      release(child)
      void exited.then(() => servers.delete(info))
      resolve(info)
    })
  })
}

/** A running server must not keep the notebook's process alive. */
function release(child: ChildProcess): void {
  child.unref()
  for (const stream of [child.stdin, child.stdout, child.stderr]) (stream as unknown as { unref?: () => void } | null)?.unref?.()
}

function eachLine(stream: NodeJS.ReadableStream, use: (line: string) => void): void {
  let rest = ''
  stream.setEncoding('utf8')
  stream.on('data', (chunk: string) => {
    const parts = (rest + chunk).split('\n')
    rest = parts.pop()!
    for (const line of parts) use(line)
  })
}

/** Where runs are kept: as asked for, as `init` was told, $ARBOR_HOME, or ~/.arbor. */
export function storagePath(options: ServerOptions = {}): string {
  return options.storagePath ?? defaults.options.storagePath ?? process.env['ARBOR_HOME'] ?? join(homedir(), '.arbor')
}

/** dist/src/cli/main.js, also when this file runs uncompiled in a test. */
function cliPath(): string {
  for (let dir = __dirname; dir !== dirname(dir); dir = dirname(dir)) {
    const path = join(dir, 'dist', 'src', 'cli', 'main.js')
    if (existsSync(path)) return path
  }
  throw new ArborError('The compiled server was not found (dist/src/cli/main.js). Run "npm run build" in the arbor-nb folder.', {
    code: 'not_built',
  })
}
