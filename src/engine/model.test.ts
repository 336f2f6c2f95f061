import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { describeEachBackend } from '../../test/golden/engine/each-backend'
import { openGolden } from '../../test/golden/engine/open-golden'
import type { Batch, KvStore, PolicyRows } from './batch'
import { LORA_TARGETS, type LoraTarget } from './engine'
import { LoraWeights } from './lora'
import { Model } from './model'
import type { Arena, Backend, Tensor } from './ops/ops'

/** A run of rows of one sequence: its new tokens, the slots they go to, and the slots of what came before. */
interface Run {
  readonly ids: readonly number[]
  readonly before: readonly number[]
  readonly slots: readonly number[]
}

const PROMPT = [17, 4, 200, 9, 33, 81, 5]

describeEachBackend((name, open) =>
  describe(`${name}: model`, { timeout: 60_000 }, () => {
    let backend: Backend
    let model: Model
    let arena: Arena
    const adapters = new Map<string, LoraWeights>()
    beforeAll(async () => {
      backend = await open()
      const files = openGolden('llama')
      model = Model.load(backend, files)
      files.weights.close()
      arena = backend.arena(1 << 22)
      adapters.set('one', randomAdapter(1, LORA_TARGETS, 4))
      adapters.set('two', randomAdapter(2, ['v_proj', 'gate_proj', 'o_proj'], 3))
    })
    afterAll(() => backend?.close())

    function randomAdapter(seed: number, targets: readonly LoraTarget[], rank: number): LoraWeights {
      const lora = LoraWeights.fresh(backend, model.config, { spec: { rank, alpha: 8, targets, dropout: 0 }, seed })
      for (const { b } of lora.modules) {
        const values = Float32Array.from({ length: b.param.shape[0]! * rank }, (_, i) => Math.sin(i * seed) / 5)
        backend.upload(b.param, values)
      }
      return lora
    }

    function ints(data: readonly number[], shape: readonly number[] = [data.length]): Tensor {
      const tensor = arena.tensor(shape, 'i32')
      backend.upload(tensor, Int32Array.from(data))
      return tensor
    }

    /** Hidden states of all runs' rows in one batch, a list a row. */
    async function forward(
      runs: readonly Run[],
      kv: readonly KvStore[],
      policies: readonly PolicyRows[] = [],
    ): Promise<number[][]> {
      const segments: number[] = []
      const context: number[] = []
      let row = 0
      for (const { ids, before, slots } of runs) {
        segments.push(row, ids.length, context.length, before.length + slots.length)
        context.push(...before, ...slots)
        row += ids.length
      }
      const batch: Batch = {
        tokens: row,
        ids: ints(runs.flatMap(({ ids }) => ids)),
        positions: ints(runs.flatMap(({ ids, before }) => ids.map((_, i) => before.length + i))),
        slots: ints(runs.flatMap(({ slots }) => slots)),
        plan: { segments: ints(segments, [runs.length, 4]), context: ints(context), segmentCount: runs.length },
        policies,
      }
      const hidden = await backend.download(model.forward(batch, kv, { arena, loras: (policy) => adapters.get(policy)! }))
      const width = model.config.hidden
      return Array.from({ length: row }, (_, i) => [...hidden.subarray(i * width, (i + 1) * width)])
    }

    const whole = (ids: readonly number[], firstSlot: number): Run => ({
      ids,
      before: [],
      slots: ids.map((_, i) => firstSlot + i),
    })

    it('decoding token by token over the cache has the bits of one prefill', async () => {
      const prefill = await forward([whole(PROMPT, 0)], model.kvStores(20, arena))
      const kv = model.kvStores(20, arena)
      const slots = [13, 2, 19, 7, 0, 5, 11] // wherever there was room
      const steps = await forward([{ ids: PROMPT.slice(0, 3), before: [], slots: slots.slice(0, 3) }], kv)
      for (let i = 3; i < PROMPT.length; i++)
        steps.push(...(await forward([{ ids: [PROMPT[i]!], before: slots.slice(0, i), slots: [slots[i]!] }], kv)))
      expect(steps).toEqual(prefill)
    })

    it('rows of two adapters and of the base in one batch have the bits they have alone', async () => {
      const runs = [whole(PROMPT, 0), whole([3, 4, 5], 7), whole([9], 10), whole([80, 70, 60, 50], 11)]
      const policies = [
        { policy: 'one', rowStart: 0, rowCount: 7 },
        { policy: 'two', rowStart: 10, rowCount: 5 },
      ]
      const together = await forward(runs, model.kvStores(20, arena), policies)
      const alone: number[][] = []
      for (const [i, run] of runs.entries()) {
        const policy = ['one', null, 'two', 'two'][i]
        const own = policy ? [{ policy, rowStart: 0, rowCount: run.ids.length }] : []
        alone.push(...(await forward([run], model.kvStores(20, arena), own)))
      }
      expect(together).toEqual(alone)
      const base = await forward(runs, model.kvStores(20, arena))
      for (const [row, values] of base.entries())
        expect(JSON.stringify(values) === JSON.stringify(together[row])).toBe(row >= 7 && row < 10)
    })

    it('inference and the pass before a backward give the same bits', async () => {
      const kv = model.kvStores(20, arena)
      const ids = ints(PROMPT)
      const rows = ints(PROMPT.map((_, i) => i))
      const plan = { segments: ints([0, 7, 0, 7], [1, 4]), context: rows, segmentCount: 1 }
      const batch: Batch = {
        tokens: 7,
        ids,
        positions: rows,
        slots: rows,
        plan,
        policies: [{ policy: 'one', rowStart: 0, rowCount: 7 }],
      }
      const loras = (policy: string) => adapters.get(policy)!
      const saved = model.activations(7, arena)
      const training = await backend.download(model.forward(batch, kv, { arena, loras, saved }))
      expect(await backend.download(model.forward(batch, kv, { arena, loras }))).toEqual(training)
    })

    it('a captured decode step replays on new tokens', async () => {
      const kv = model.kvStores(20, arena)
      const ids = ints([3])
      const positions = ints([0])
      const plan = { segments: ints([0, 1, 0, 1], [1, 4]), context: ints([0, 1, 2]), segmentCount: 1 }
      const batch: Batch = { tokens: 1, ids, positions, slots: ints([0]), plan, policies: [] }
      const logits = arena.tensor([1, model.config.vocab])
      const { replay } = backend.capture(() =>
        model.logits(model.forward(batch, kv, { arena, loras: () => adapters.get('one')! }), logits),
      )
      for (const token of [3, 77]) {
        backend.upload(ids, Int32Array.of(token))
        replay()
        const captured = await backend.download(logits)
        const direct = arena.tensor([1, model.config.vocab])
        model.logits(model.forward(batch, kv, { arena, loras: () => adapters.get('one')! }), direct)
        expect(await backend.download(direct)).toEqual(captured)
      }
    })
  }),
)
