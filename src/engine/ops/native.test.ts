import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { ensureNative } from './build-native'
import { describeOps } from './describe-ops'
import { type NativeLibrary, openNative } from './native'
import type { Backend } from './ops'

let library: NativeLibrary
beforeAll(async () => {
  library = await ensureNative()
}, 600_000)

describeOps('native', async () => openNative(library))

describe('native backend', () => {
  let backend: Backend
  beforeAll(() => {
    backend = openNative(library)
  })
  afterAll(() => backend.close())

  it('an index that points nowhere surfaces at the next download, once, and the stream goes on', async () => {
    const arena = backend.arena(4096)
    const [ids, table, out] = [arena.tensor([1], 'i32'), arena.tensor([3, 4]), arena.tensor([1, 4])]
    backend.upload(ids, Int32Array.of(3))
    backend.ops.fill(table, 1)
    backend.ops.embed({ out, table, ids })
    await expect(backend.download(out)).rejects.toThrow('token id 3 is outside 0 to 2')
    backend.ops.fill(out, 2)
    expect(await backend.download(out)).toEqual(Float32Array.of(2, 2, 2, 2))
    arena.close()
  })
})
