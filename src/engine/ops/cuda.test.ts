import { describe, expect, it } from 'vitest'
import { CUDA, cudaLibrary, gpuCount, openGpu, ownGpu } from '../../../test/emulator/gpu'
import { BackendError } from '../../errors'
import { describeOps } from './describe-ops'
import { openNative } from './native'
import type { Tensor } from './ops'

describe(CUDA, () => {
  describeOps('cuda f32', () => openGpu('f32'))
  // Activations are rounded as well as weights.
  describeOps('cuda bf16', () => openGpu('bf16'), { rounded: 2e-2, activations: 'bf16', decodesApart: true })

  it('an index that points nowhere surfaces at the next download, once, and the stream goes on', async () => {
    const backend = await openGpu('f32')
    const arena = backend.arena(1 << 12)
    const [table, out, ids] = [arena.tensor([3, 4]), arena.tensor([1, 4]), arena.tensor([1], 'i32')]
    backend.ops.fill(table, 1)
    backend.upload(ids, Int32Array.of(3))
    backend.ops.embed({ out, table, ids })
    await expect(backend.download(out)).rejects.toThrow(
      new BackendError('arbor_embed: token id 3 is outside 0 to 2', { op: 'status' }),
    )
    backend.ops.fill(out, 2)
    expect(await backend.download(out)).toEqual(Float32Array.of(2, 2, 2, 2))
    backend.close()
  })

  it('data given to upload may change at once, in any number of uploads', async () => {
    const backend = await openGpu('f32')
    const arena = backend.arena(1 << 26)
    const targets = Array.from({ length: 40 }, () => arena.tensor([100_000]))
    const data = new Float32Array(100_000)
    for (const [i, target] of targets.entries()) backend.upload(target, data.fill(i)) // 16 MiB: around the ring once
    data.fill(-1)
    const values = await Promise.all(targets.map((target) => backend.download(target.rows(99_999, 1))))
    expect(values.map(([value]) => value)).toEqual(targets.map((_, i) => i))
    backend.close()
  })

  it('memory that there is not is refused in words, and the backend goes on', async () => {
    const backend = await openGpu('f32')
    const { free, total } = backend.memory()!
    expect(free).toBeLessThanOrEqual(total)
    expect(() => backend.arena(2 * total)).toThrow(/no device memory for .* GiB; .* GiB are free/)
    const x = backend.arena(64).tensor([4])
    backend.ops.fill(x, 3)
    expect(await backend.download(x)).toEqual(Float32Array.of(3, 3, 3, 3))
    backend.close()
  })

  it('scratch memory that is outgrown is given back, but for what a capture points into', async () => {
    const backend = await openGpu('f32')
    const rowOfHead = (hidden: number) => {
      const arena = backend.arena(5 * 4 * hidden)
      const [rows, targets] = [0, 1].map(() => arena.tensor([1], 'i32')) as [Tensor, Tensor]
      const [logprobs, entropies, lse] = [0, 1, 2].map(() => arena.tensor([1])) as [Tensor, Tensor, Tensor]
      const given = { hidden: arena.tensor([1, hidden]), head: arena.tensor([2, hidden]), rows, targets, temperature: 1 }
      backend.ops.fill(given.hidden, 1)
      backend.ops.fill(given.head, 1 / hidden)
      for (const ids of [rows, targets]) backend.upload(ids, Int32Array.of(0))
      return { logprobs, compute: () => backend.ops.logprob({ ...given, logprobs, entropies, lse }) }
    }
    // Scratch for 128 rows of hidden states, with what is to spare: 20, 40 and 80 MiB.
    type Row = ReturnType<typeof rowOfHead>
    const [small, larger, largest] = [15, 16, 17].map((power) => rowOfHead(1 << power)) as [Row, Row, Row]
    const capture = backend.capture(() => small.compute())
    const taken = async ({ compute, logprobs }: Row) => {
      const { free } = backend.memory()!
      compute()
      expect((await backend.download(logprobs))[0]).toBeCloseTo(-Math.LN2)
      return Math.round((free - backend.memory()!.free) / 2 ** 20 / 40)
    }
    const grown = [await taken(larger), await taken(largest)]
    if (ownGpu) expect(grown).toEqual([1, 1]) // 40, and 80 less 40
    capture.replay()
    expect((await backend.download(small.logprobs))[0]).toBeCloseTo(-Math.LN2)
    capture.free()
    backend.close()
  })

  it('a GPU that is not there is named', async () => {
    const library = await cudaLibrary()
    expect(() => openNative(library, { device: 'cuda', index: 99 })).toThrow(/GPUs 0 to \d+, not 99/)
  })

  describe.skipIf(gpuCount < 2)('a group of GPUs (skipped: fewer than two)', () => {
    const joined = async () => {
      const backends = await Promise.all([0, 1].map((index) => openGpu('f32', index)))
      const id = backends[0]!.group.id()
      await Promise.all(backends.map(({ group }, rank) => group.join({ id, ranks: 2, rank })))
      return backends
    }

    it('sums many tensors of any length to the same bits on both', { timeout: 60_000 }, async () => {
      const backends = await joined()
      const lengths = [1, 1000, 12_345, 1 << 20]
      const tensors = backends.map((backend, rank) => {
        const arena = backend.arena(8 << 20)
        return lengths.map((length) => {
          const x = arena.tensor([length])
          backend.upload(
            x,
            Float32Array.from({ length }, (_, i) => Math.sin(i + 1) * (rank ? 1e-3 : 1)),
          )
          return x
        })
      })
      await Promise.all(backends.map(({ group }, rank) => group.sum(tensors[rank]!)))
      for (const [i, length] of lengths.entries()) {
        const sums = await Promise.all(backends.map((backend, rank) => backend.download(tensors[rank]![i]!)))
        expect(sums[1]).toEqual(sums[0])
        const expected = Float32Array.from(
          { length },
          (_, j) => Math.fround(Math.sin(j + 1)) + Math.fround(Math.sin(j + 1) * 1e-3),
        )
        expect(sums[0]).toEqual(expected)
      }
      for (const backend of backends) backend.close()
    })

    it('that one leaves ends for the one who waits, in words; both go on, and may form another', {
      timeout: 60_000,
    }, async () => {
      const backends = await joined()
      const [x, y] = backends.map((backend) => backend.arena(64).tensor([4])) as [Tensor, Tensor]
      for (const [i, one] of [x, y].entries()) backends[i]!.ops.fill(one, i + 1)
      const waiting = expect(backends[0]!.group.sum([x])).rejects.toThrow(/given up: another GPU failed or is gone/)
      await new Promise((resolve) => setTimeout(resolve, 500))
      for (const { group } of backends) group.leave()
      await waiting
      const id = backends[0]!.group.id()
      await Promise.all(backends.map(({ group }, rank) => group.join({ id, ranks: 2, rank })))
      backends[0]!.ops.fill(x, 1)
      await Promise.all([backends[0]!.group.sum([x]), backends[1]!.group.sum([y])])
      expect(await backends[0]!.download(x)).toEqual(Float32Array.of(3, 3, 3, 3))
      for (const backend of backends) backend.close()
    })
  })
})
