// A request handler on a port.

import type { Server, ServerResponse } from 'node:http'
import { createAdaptorServer } from '@hono/node-server'
import { OptionError } from '../errors'
import { errorResponse } from './http-errors'
import { checkHost } from './incoming'

/** Arbor's first port; the next free one is taken when it is in use and none was asked for. */
const FIRST_PORT = 7453
const PORTS_TRIED = 100
/** Connections that may wait to be taken: all of a step's calls at once, while we are busy with the first of them. */
const BACKLOG = 2048

export interface Socket {
  readonly host: string
  readonly port: number
  /** http://HOST:PORT/v1/ */
  readonly baseUrl: string
  /** Ends all connections and gives the port back. */
  close(): Promise<void>
}

/** Without a port the first free one from 7453 up; 0 lets the system choose. Throws OptionError for a port that is taken. */
export async function openSocket(
  handler: (request: Request) => Promise<Response>,
  { host = '127.0.0.1', port: wanted }: { host?: string; port?: number } = {},
): Promise<Socket> {
  const server = createAdaptorServer({ fetch: withReason(forNeighbours(handler, host)) }) as Server
  const first = wanted ?? FIRST_PORT
  const last = wanted ?? FIRST_PORT + PORTS_TRIED - 1
  for (let port = first; port <= last; port++) if (await listens(server, host, port)) return socketOf(server, host)
  if (wanted === undefined) throw new OptionError(`All ports from ${first} to ${last} are taken. Give one with --port.`)
  throw new OptionError(`Port ${wanted} is taken by another program. Give another --port, or none to take the next free one.`)
}

/** Refuses who comes under a stranger's name. */
function forNeighbours(handler: (request: Request) => Promise<Response>, host: string) {
  return async (request: Request): Promise<Response> => {
    try {
      checkHost(request, host)
    } catch (error) {
      return errorResponse(error, '')
    }
    return handler(request)
  }
}

/** The adaptor sends a response's status without its text; errors have one (http-errors.ts). */
function withReason(handler: (request: Request) => Promise<Response>) {
  return async (request: Request, { outgoing }: { outgoing: unknown }): Promise<Response> => {
    const response = await handler(request)
    if (response.status >= 400) (outgoing as ServerResponse).statusMessage = response.statusText
    return response
  }
}

function socketOf(server: Server, host: string): Socket {
  const address = server.address()
  const port = typeof address === 'object' && address !== null ? address.port : 0
  // A stream that waits for a step record would keep the socket open for ever, so connections are ended, not waited for.
  const close = () =>
    new Promise<void>((resolve) => {
      server.close(() => resolve())
      server.closeAllConnections()
    })
  return { host, port, baseUrl: `http://${host.includes(':') ? `[${host}]` : host}:${port}/v1/`, close }
}

/** False when the port is taken; any other failure (a host that is not this machine's) is an error. */
function listens(server: Server, host: string, port: number): Promise<boolean> {
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
    server.listen(port, host, BACKLOG)
  })
}
