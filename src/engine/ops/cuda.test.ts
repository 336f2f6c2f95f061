import { describe, expect, it } from 'vitest'
import { BackendError } from '../../errors'
import { ensureCuda, gpus } from './build-cuda'
import { describeOps } from './describe-ops'
import { openNative } from './native'
import type { Backend, Precision } from './ops'

const open = async (precision: Precision): Promise<Backend> => openNative(await ensureCuda(), { device: 'cuda', precision })

describe.skipIf(gpus().length === 0)('CUDA (skipped: no NVIDIA GPU answers)', () => {
  describeOps('cuda f32', () => open('f32'))
  // Activations are rounded as well as weights.
  describeOps('cuda bf16', () => open('bf16'), { rounded: 2e-2, activations: 'bf16', decodesApart: true })

  it('an index that points nowhere surfaces at the next download, once, and the stream goes on', async () => {
    const backend = await open('f32')
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
    const backend = await open('f32')
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
    const backend = await open('f32')
    const { free, total } = backend.memory()!
    expect(free).toBeLessThanOrEqual(total)
    expect(() => backend.arena(2 * total)).toThrow(/no device memory for .* GiB; .* GiB are free/)
    const x = backend.arena(64).tensor([4])
    backend.ops.fill(x, 3)
    expect(await backend.download(x)).toEqual(Float32Array.of(3, 3, 3, 3))
    backend.close()
  })

  it('a GPU that is not there is named', async () => {
    const library = await ensureCuda()
    expect(() => openNative(library, { device: 'cuda', index: 99 })).toThrow(/GPUs 0 to \d+, not 99/)
  })
})
