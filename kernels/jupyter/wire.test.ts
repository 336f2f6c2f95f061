import { describe, expect, it } from 'vitest'
import { Wire } from './wire'

const client = new Wire('secret')
const { header, frames } = client.encode(
  'execute_request',
  { code: '1' },
  { identities: [Buffer.from('me')], buffers: [Buffer.from('b')] },
)

describe('a message on the wire', () => {
  it('comes back as it was sent, with its identities and buffers', () => {
    const message = new Wire('secret').decode(frames)!
    expect(message.header).toEqual(header)
    expect(message.content).toEqual({ code: '1' })
    expect(Buffer.from(message.identities[0]!).toString()).toBe('me')
    expect(Buffer.from(message.buffers[0]!).toString()).toBe('b')
  })

  it('is refused when it comes a second time', () => {
    const kernel = new Wire('secret')
    expect(kernel.decode(frames)).not.toBe(null)
    expect(kernel.decode(frames)).toBe(null)
  })

  it('is refused with another key, a changed part, or parts missing', () => {
    expect(new Wire('other').decode(frames)).toBe(null)
    const changed = frames.map((frame, i) => (i === 6 ? Buffer.from('{"code":"2"}') : frame))
    expect(new Wire('secret').decode(changed)).toBe(null)
    expect(new Wire('secret').decode(frames.slice(0, 5))).toBe(null)
    expect(new Wire('secret').decode([Buffer.from('noise')])).toBe(null)
  })

  it('is refused when it is signed but no dictionary', () => {
    const odd = client.encode('x', ['a list'])
    expect(new Wire('secret').decode(odd.frames)).toBe(null)
  })
})
