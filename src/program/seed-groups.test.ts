import { describe, expect, it } from 'vitest'
import type { ChatClient, ChatCompletion } from './chat-client'
import { groupSeeds } from './seed-groups'

/** A client that answers each seed with its own text, and remembers what it was sent. */
function recorder() {
  const bodies: Record<string, unknown>[] = []
  const client: ChatClient = async (body) => {
    bodies.push(body)
    const seeds = (body['seeds'] ?? [body['seed']]) as number[]
    const choices = seeds.map((seed, index) => ({
      index,
      finish_reason: 'stop',
      message: { content: `${body['prompt']} ${seed}` },
      completion_tokens: seed,
    }))
    return { id: `r${bodies.length}`, choices, usage: { prompt_tokens: 10, completion_tokens: 99, total_tokens: 109 } }
  }
  return { bodies, ask: groupSeeds(client) }
}

const text = ({ choices }: ChatCompletion) => choices.map((choice) => choice.message.content).join()

describe('groupSeeds', () => {
  it('sends calls that differ in their seed alone as one request, and gives each its own choice and usage', async () => {
    const { bodies, ask } = recorder()
    const calls = [
      ask({ prompt: 'a', seed: 3 }),
      ask({ prompt: 'b', seed: 4 }),
      ask({ prompt: 'a', seed: 5, n: 1 }),
      ask({ prompt: 'a', seed: 6 }),
    ]
    const answers = await Promise.all(calls)
    expect(answers.map(text)).toEqual(['a 3', 'b 4', 'a 5', 'a 6'])
    expect(bodies).toEqual([
      { prompt: 'a', n: 2, seeds: [3, 6] },
      { prompt: 'b', seed: 4 },
      { prompt: 'a', n: 1, seed: 5 },
    ])
    expect(answers[3]).toMatchObject({ id: 'r1', choices: [{ index: 1 }] })
    expect(answers[3]!.usage).toEqual({ prompt_tokens: 10, completion_tokens: 6, total_tokens: 16 })
  })

  it('sends what has no seed or asks for several choices as it is, and later calls on their own', async () => {
    const { bodies, ask } = recorder()
    await Promise.all([ask({ prompt: 'a' }), ask({ prompt: 'a', seed: 1, n: 2 }), ask({ prompt: 'a', seed: 1 })])
    await ask({ prompt: 'a', seed: 2 })
    expect(bodies).toEqual([{ prompt: 'a' }, { prompt: 'a', seed: 1, n: 2 }, { prompt: 'a', seed: 1 }, { prompt: 'a', seed: 2 }])
  })

  it('parts calls under different signals, and splits more seeds than a request may have', async () => {
    const { bodies, ask } = recorder()
    const { signal } = new AbortController()
    const many = Array.from({ length: 130 }, (_, seed) => ask({ prompt: 'a', seed }, { signal }))
    const answers = await Promise.all([...many, ask({ prompt: 'a', seed: 7 })])
    expect(answers.map(text)).toEqual([...many.map((_, seed) => `a ${seed}`), 'a 7'])
    expect(bodies.map((body) => body['n'])).toEqual([128, 2, undefined])
  })

  it('fails every call of a request that fails, and tells of a server that takes no list', async () => {
    const down = groupSeeds(() => Promise.reject(new Error('gone')))
    const failed = await Promise.allSettled([down({ seed: 1 }), down({ seed: 2 })])
    expect(failed.map((one) => one.status === 'rejected' && (one.reason as Error).message)).toEqual(['gone', 'gone'])
    const plain = groupSeeds(async () => ({ id: 'x', choices: [{ index: 0, finish_reason: 'stop', message: { content: 'y' } }] }))
    await expect(Promise.all([plain({ seed: 1 }), plain({ seed: 2 })])).rejects.toThrow('2 seeds were sent and 1 choices came')
  })
})
