import { describe, expect, it } from 'vitest'
import { BackendError } from '../../errors'
import { sampleToken } from '../sampling'
import { describeOps } from './describe-ops'
import { openTfjs } from './tfjs'

// The judge has no judge: here finite differences, invariance and guard words, and the model's golden numbers elsewhere.
describeOps('tfjs', openTfjs)

describe('TensorFlow.js backend', () => {
  it('sample is sampling.ts row by row', async () => {
    const backend = await openTfjs()
    const arena = backend.arena(4096)
    const logits = Float32Array.from({ length: 20 }, (_, i) => Math.sin(i * 7))
    const tensors = {
      logits: arena.tensor([2, 10]),
      floats: arena.tensor([2, 6]),
      ints: arena.tensor([2, 4], 'i32'),
      history: arena.tensor([3], 'i32'),
      tokens: arena.tensor([2], 'i32'),
      logprobs: arena.tensor([2, 2]),
    }
    backend.upload(tensors.logits, logits)
    backend.upload(tensors.floats, Float32Array.of(0.5, 1, 0, 1.5, 0.25, 0, 2, 0.5, 0, 1, 0.75, 0))
    backend.upload(tensors.ints, Int32Array.of(0, 1, 2, 0, 4, 0, 0, 0))
    backend.upload(tensors.history, Int32Array.of(0, 3, 7))
    backend.ops.sample(tensors)
    const off = { topK: 0, topP: 1, minP: 0 }
    const first = sampleToken(logits.slice(0, 10), { ...off, temperature: 0.5, repetitionPenalty: 1.5 }, [3, 7], 0.25)
    const second = sampleToken(logits.slice(10), { temperature: 2, topK: 4, topP: 0.5, minP: 0, repetitionPenalty: 1 }, [], 0.75)
    expect([...(await backend.download(tensors.tokens))]).toEqual([first.token, second.token])
    const expected = [first, second].flatMap(({ logprob, plainLogprob }) => [logprob, plainLogprob])
    expect(await backend.download(tensors.logprobs)).toEqual(Float32Array.from(expected))
  })

  it('leaves no tfjs tensor behind', async () => {
    const tf = await import('@tensorflow/tfjs')
    const backend = await openTfjs()
    const arena = backend.arena(4096)
    const [x, y, w] = [arena.tensor([4, 8]), arena.tensor([4, 8]), arena.tensor([8, 8])]
    const before = tf.memory().numTensors
    backend.ops.linear({ y, x, weight: w })
    backend.ops.linearBackward({ dx: x, dy: y, x: y, weight: w, dWeight: w })
    expect(tf.memory().numTensors).toBe(before)
  })

  it('an op that fails is named, with the reason', async () => {
    const backend = await openTfjs()
    const arena = backend.arena(4096)
    const run = () => backend.ops.linear({ y: arena.tensor([2, 3]), x: arena.tensor([2, 4]), weight: arena.tensor([3, 5]) })
    expect(run).toThrow(BackendError)
    expect(run).toThrow(/could not run linear/)
    expect(() => arena.tensor([2], 'bf16')).toThrow(/f32 only/)
    expect(() => backend.upload(arena.tensor([2]), Float32Array.of(1))).toThrow('1 values for a tensor [2]')
  })
})
