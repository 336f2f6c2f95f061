import { describe, expect, it } from 'vitest'
import { Moments } from './moments'

/** What has begun so far, in order. */
function beginnings(moments: Moments) {
  const begun: string[] = []
  const arrive = (name: string, header: string | null) => moments.arrived(header).then(() => void begun.push(name))
  return { begun, arrive }
}

describe('Moments', () => {
  it('lets requests of one moment begin when the last of them has come, whoever comes between', async () => {
    const { begun, arrive } = beginnings(new Moments())
    const first = [arrive('a1', 'a/3'), arrive('a2', 'a/3'), arrive('b1', 'b/2')]
    await arrive('alone', null)
    expect(begun).toEqual(['alone'])
    await Promise.all([...first.slice(0, 2), arrive('a3', 'a/3')])
    expect(begun).toEqual(['alone', 'a1', 'a2', 'a3'])
    await Promise.all([first[2], arrive('b2', 'b/2')])
    expect(begun).toEqual(['alone', 'a1', 'a2', 'a3', 'b1', 'b2'])
  })

  it('waits for nobody who does not come, and not for what it cannot read', async () => {
    const { begun, arrive } = beginnings(new Moments(20))
    await arrive('lost', 'c/2')
    for (const header of ['', '5', 'd/', 'd/x', '/3', `${'e'.repeat(65)}/2`, 'd/99999', 'd/0', 'd/1'])
      await arrive(header, header)
    expect(begun.length).toBe(10)
  })
})
