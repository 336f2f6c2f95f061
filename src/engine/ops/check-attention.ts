// A row of attention has the same bits whatever stands beside it, and however the rows of a prompt are divided among segments.

import { expect } from 'vitest'
import { causal, crowd, distant, gathering, type Heads, type Plan, planValues, shared, tree } from './cases/attention-plans'
import { Random, type Values } from './cases/case'
import type { Arena, Backend, TypedArray } from './ops'
import { toBf16 } from './tensors.fixture'

/** Of a width that every device takes one way, and of one that tensor cores have. */
const HEADS: readonly Heads[] = [
  { heads: 4, kvHeads: 2, headDim: 16 },
  { heads: 6, kvHeads: 2, headDim: 64 },
]

/** A prompt's rows in one segment, and each in one of its own over the part of the context that it sees. */
export async function checkDivision(
  backend: Backend,
  decodesApart: boolean,
  { shapes = HEADS, plans = [causal(70), tree(), causal(200)] }: { shapes?: readonly Heads[]; plans?: readonly Plan[] } = {},
): Promise<void> {
  for (const heads of shapes)
    for (const plan of plans) {
      const segments = plan.segments.flatMap(([rowStart, rows, contextStart, length]) =>
        Array.from({ length: rows }, (_, i) => [rowStart + i, 1, contextStart, length - rows + i + 1] as const),
      )
      const whole = await attend(backend, plan, heads, false)
      for (const decode of decodesApart ? [false] : [false, true])
        expect(await attend(backend, { ...plan, segments }, heads, decode), `${plan.name}, decode ${decode}`).toEqual(whole)
    }
}

/** Rows of all kinds that decode have the bits that they have in a prompt; what large values leave when they cancel shows the order of a sum. */
export async function checkGathering(backend: Backend, heads: Heads, times: readonly number[]): Promise<void> {
  for (const plan of times.map(gathering))
    expect(await attend(backend, plan, heads, true, 0, cancel), plan.name).toEqual(
      await attend(backend, plan, heads, false, 0, cancel),
    )
}

/** Rows that decode: among others, with whom they share keys, and alone. */
export async function checkDecoding(backend: Backend): Promise<void> {
  for (const heads of HEADS)
    for (const plan of [shared(), distant(), crowd()]) {
      const together = await attend(backend, plan, heads, true)
      const step = Math.ceil(plan.segments.length / 20)
      for (const [at, [, , start, length]] of plan.segments.entries()) {
        if (at % step !== 0) continue
        const alone = { ...plan, tokens: 1, segments: [[0, 1, start, length]] } as const
        expect(await attend(backend, alone, heads, true, at), `${plan.name}: row ${at}`).toEqual([together[at]])
      }
    }
}

/** A call that goes on with the plan of the one before, as a model's layers do: bits as if the plan were new, whatever the other function did between. */
export async function checkSamePlan(backend: Backend): Promise<void> {
  for (const heads of HEADS) {
    const arena = backend.arena(1 << 20)
    const own = tensorsOf(backend, arena, tree(), heads)
    const other = tensorsOf(backend, arena, causal(70), heads)
    const run = async (samePlan: boolean) => {
      backend.ops.attention({ ...own.forward, samePlan })
      backend.ops.attentionBackward({ ...own.backward, samePlan })
      const { out, lse, dq, dk, dv } = own.backward
      return Promise.all([out, lse, dq, dk, dv].map(async (tensor) => [...(await backend.download(tensor))]))
    }
    const first = await run(false)
    backend.ops.attentionBackward({ ...other.backward }) // a plan of other sizes in the tables' memory: it is seen that they are not these
    backend.ops.attention({ ...other.forward })
    expect(await run(true)).toEqual(first)
    expect(await run(true)).toEqual(first)
    arena.close()
  }
}

function tensorsOf(backend: Backend, arena: Arena, plan: Plan, heads: Heads) {
  const upload = uploads(backend, arena)
  const [width, keyWidth] = [heads.heads * heads.headDim, heads.kvHeads * heads.headDim]
  const rows = (seed: number) => upload(new Random(seed).normal([plan.tokens, width]))
  const keys = (seed: number) => upload(new Random(seed).normal([plan.slots, keyWidth]))
  const { segments, context } = planValues(plan)
  const given = { segments: upload(segments), context: upload(context), segmentCount: plan.segments.length }
  const saved = { out: rows(1), lse: arena.tensor([plan.tokens, heads.heads]) }
  const forward = { ...saved, q: rows(2), k: keys(3), v: keys(4), plan: given, ...heads }
  const sums = () => arena.tensor([plan.slots, keyWidth])
  return { forward, backward: { ...forward, dOut: rows(5), dq: rows(6), dk: sums(), dv: sums() } }
}

/** Two keys of each whole 64 are alike, and their values large but for the sign. */
function cancel({ segments, context }: Plan, k: Values, v: Values): void {
  const width = k.shape[1]!
  for (const [, , start, length] of segments)
    for (let at = 40; at < length; at += 64) {
      const [one, other] = [context[start + at - 35]! * width, context[start + at]! * width]
      k.data.copyWithin(other, one, one + width)
      v.data.fill(1e4, one, one + width).fill(-1e4, other, other + width)
    }
}

/** What each row of a plan gets: its outputs and logsumexps. The rows' queries are those from `first` on of a longer list. */
async function attend(
  backend: Backend,
  plan: Plan,
  heads: Heads,
  decode: boolean,
  first = 0,
  change: (plan: Plan, k: Values, v: Values) => void = () => {},
): Promise<number[][]> {
  const arena = backend.arena(1 << 20)
  const rows = (seed: number, length: number, width: number) => new Random(seed).normal([length, width])
  const upload = uploads(backend, arena)
  const width = heads.heads * heads.headDim
  const q = upload(rows(1, first + plan.tokens, width)).rows(first, plan.tokens)
  const [keys, values] = [2, 3].map((seed) => rows(seed, plan.slots, heads.kvHeads * heads.headDim))
  change(plan, keys!, values!)
  const [k, v] = [upload(keys!), upload(values!)]
  const { segments, context } = planValues(plan)
  const out = arena.tensor([plan.tokens, width], backend.activations)
  const lse = arena.tensor([plan.tokens, heads.heads])
  const given = { segments: upload(segments), context: upload(context), segmentCount: plan.segments.length }
  backend.ops.attention({ out, q, k, v, plan: given, lse, ...heads, decode })
  const [outs, lses] = await Promise.all([out, lse].map((tensor) => backend.download(tensor)))
  arena.close()
  const of = (values: TypedArray, row: number) => {
    const length = values.length / plan.tokens
    return Array.from(values.subarray(row * length, (row + 1) * length))
  }
  return Array.from({ length: plan.tokens }, (_, row) => [...of(outs!, row), ...of(lses!, row)])
}

/** Puts values on the device, activations in its own type. */
function uploads(backend: Backend, arena: Arena) {
  return ({ shape, data }: Values) => {
    const bf16 = backend.activations === 'bf16' && data instanceof Float32Array
    const tensor = arena.tensor(shape, data instanceof Int32Array ? 'i32' : backend.activations)
    backend.upload(tensor, bf16 ? toBf16(data) : data)
    return tensor
  }
}
