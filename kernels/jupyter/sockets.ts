// The five sockets of a kernel. A zeromq.js socket takes one send at a time, so each has a queue; its high-water mark is off,
// or messages beyond the 1000th would vanish in silence.

import { Router, XPublisher } from 'zeromq'
import type { Connection } from './bridge'

export type Channel = 'shell' | 'control' | 'stdin'
type AnySocket = Router | XPublisher

export interface SocketHandlers {
  /** Frames as they came; must not throw. */
  onMessage(channel: Channel, frames: Uint8Array[]): void
  onSubscribe(topic: Uint8Array): void
}

export class Sockets {
  private readonly routers: Record<Channel | 'heartbeat', Router>
  private readonly publisher: XPublisher
  private readonly queues = new Map<AnySocket, Promise<void>>()
  private open = true

  constructor(private readonly connection: Connection) {
    const router = () => new Router({ sendHighWaterMark: 0, receiveHighWaterMark: 0, linger: 1000 })
    this.routers = { shell: router(), control: router(), stdin: router(), heartbeat: router() }
    this.publisher = new XPublisher({ sendHighWaterMark: 0, linger: 1000 })
    this.publisher.verbosity = 'allSubs' // also the second client that asks for everything gets its welcome
  }

  async bind(handlers: SocketHandlers): Promise<void> {
    const { shell_port, control_port, stdin_port, hb_port, iopub_port } = this.connection
    const { shell, control, stdin, heartbeat } = this.routers
    const pairs: [AnySocket, number][] = [
      [this.publisher, iopub_port],
      [shell, shell_port],
      [control, control_port],
      [stdin, stdin_port],
      [heartbeat, hb_port],
    ]
    await Promise.all(pairs.map(([socket, port]) => socket.bind(this.address(port))))
    for (const channel of ['shell', 'control', 'stdin'] as const)
      void this.read(this.routers[channel], (frames) => handlers.onMessage(channel, frames))
    void this.read(heartbeat, (frames) => this.queue(heartbeat, frames))
    // A subscription arrives as one frame: 1, then the topic.
    void this.read(this.publisher, ([frame]) => frame?.[0] === 1 && handlers.onSubscribe(frame.slice(1)))
  }

  send(channel: Channel, frames: Uint8Array[]): Promise<void> {
    return this.queue(this.routers[channel], frames)
  }

  publish(frames: Uint8Array[]): Promise<void> {
    return this.queue(this.publisher, frames)
  }

  /** After all that is queued has been handed over. */
  async close(): Promise<void> {
    await Promise.all(this.queues.values())
    this.open = false
    for (const socket of [...Object.values(this.routers), this.publisher]) socket.close()
  }

  private address(port: number): string {
    const { transport, ip } = this.connection
    return transport === 'ipc' ? `ipc://${ip}-${port}` : `${transport}://${ip}:${port}`
  }

  private queue(socket: AnySocket, frames: Uint8Array[]): Promise<void> {
    const sent = (this.queues.get(socket) ?? Promise.resolve()).then(() => (this.open ? socket.send(frames) : undefined))
    // A client that is gone must not stop what follows.
    const settled = sent.catch(() => undefined)
    this.queues.set(socket, settled)
    return settled
  }

  private async read(socket: AnySocket, handle: (frames: Uint8Array[]) => unknown): Promise<void> {
    while (this.open) {
      const frames = await socket.receive().catch(() => null) // closed
      if (frames === null) return
      handle(frames as Uint8Array[])
    }
  }
}
