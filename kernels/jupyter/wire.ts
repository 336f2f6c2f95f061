// Jupyter's messages as frames: identities, delimiter, signature, four dictionaries, buffers. Checked before anything is parsed.

import { createHmac, randomUUID, timingSafeEqual } from 'node:crypto'

export const PROTOCOL_VERSION = '5.4'
const DELIMITER = '<IDS|MSG>'
/** As many signatures as jupyter_client keeps to recognize a replay. */
const REMEMBERED = 65_536

export interface Header {
  readonly msg_id: string
  readonly msg_type: string
  readonly session: string
  readonly username: string
  readonly date: string
  readonly version: string
}

export interface Message {
  readonly identities: readonly Uint8Array[]
  readonly header: Header
  readonly parent: Partial<Header>
  readonly metadata: Record<string, unknown>
  readonly content: Record<string, unknown>
  readonly buffers: readonly Uint8Array[]
}

/** What a sender may say beside type and content. */
export interface Envelope {
  readonly identities?: readonly Uint8Array[]
  readonly parent?: Partial<Header>
  readonly metadata?: Record<string, unknown>
  readonly buffers?: readonly Uint8Array[]
}

/** Signs, verifies and remembers the messages of one connection. */
export class Wire {
  private readonly session = randomUUID()
  private readonly seen = new Set<string>()
  private readonly hash: string

  /** An empty key means that nobody signs (only ipc and tests do that). */
  constructor(
    private readonly key: string,
    scheme = 'hmac-sha256',
  ) {
    this.hash = scheme.replace(/^hmac-/, '')
  }

  /** The message in `frames`, or null when it is malformed, wrongly signed or was seen before. */
  decode(frames: readonly Uint8Array[]): Message | null {
    const at = frames.findIndex((frame) => Buffer.from(frame).toString('latin1') === DELIMITER)
    if (at < 0 || frames.length < at + 6) return null
    const signature = Buffer.from(frames[at + 1]!).toString('latin1')
    const parts = frames.slice(at + 2, at + 6)
    if (!this.trusted(signature, parts)) return null
    try {
      const [header, parent, metadata, content] = parts.map((part) => asObject(JSON.parse(Buffer.from(part).toString())))
      if (typeof header!.msg_type !== 'string' || typeof header!.msg_id !== 'string') return null
      return {
        identities: frames.slice(0, at).map(copy),
        header: header as unknown as Header,
        parent: parent!,
        metadata: metadata!,
        content: content!,
        buffers: frames.slice(at + 6).map(copy),
      }
    } catch (error) {
      if (error instanceof SyntaxError || error instanceof TypeError) return null // signed, but no JSON object
      throw error
    }
  }

  encode(type: string, content: unknown, { identities = [], parent = {}, metadata = {}, buffers = [] }: Envelope = {}) {
    const header: Header = {
      msg_id: randomUUID(),
      msg_type: type,
      session: this.session,
      username: 'kernel',
      date: new Date().toISOString(),
      version: PROTOCOL_VERSION,
    }
    const parts = [header, parent, metadata, content].map((part) => Buffer.from(JSON.stringify(part)))
    const frames = [...identities, Buffer.from(DELIMITER), Buffer.from(this.sign(parts)), ...parts, ...buffers] as Uint8Array[]
    return { header, frames }
  }

  private trusted(signature: string, parts: readonly Uint8Array[]): boolean {
    if (this.key === '') return true
    const expected = Buffer.from(this.sign(parts))
    const given = Buffer.from(signature)
    if (given.length !== expected.length || !timingSafeEqual(given, expected) || this.seen.has(signature)) return false
    this.seen.add(signature)
    // A set keeps its order: the first is the oldest.
    if (this.seen.size > REMEMBERED) this.seen.delete(this.seen.values().next().value!)
    return true
  }

  private sign(parts: readonly Uint8Array[]): string {
    if (this.key === '') return ''
    const hmac = createHmac(this.hash, this.key)
    for (const part of parts) hmac.update(part)
    return hmac.digest('hex')
  }
}

function asObject(value: unknown): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new TypeError('a dictionary is needed')
  return value as Record<string, unknown>
}

/** Frames are views of memory that the socket may use again. */
function copy(frame: Uint8Array): Uint8Array {
  return new Uint8Array(frame)
}
