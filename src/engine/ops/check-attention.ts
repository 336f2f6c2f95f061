// A row of attention has the same bits whatever stands beside it, and however the rows of a prompt are divided among segments.

import { expect } from 'vitest'
import { causal, distant, type Heads, type Plan, planValues, shared, tree } from './cases/attention-plans'
import { Random, type Values } from './cases/case'
import type { Backend, TypedArray } from './ops'
import { toBf16 } from './tensors.fixture'

/** Of a width that every device takes one way, and of one that tensor cores have. */
const HEADS: readonly Heads[] = [
  { heads: 4, kvHeads: 2, headDim: 16 },
  { heads: 6, kvHeads: 2, headDim: 64 },
]

/** A prompt's rows in one segment, and each in one of its own over the part of the context that it sees. */
export async function checkDivision(backend: Backend, decodesApart: boolean): Promise<void> {
  for (const heads of HEADS)
    for (const plan of [causal(70), tree(), causal(200)]) {
      const segments = plan.segments.flatMap(([rowStart, rows, contextStart, length]) =>
        Array.from({ length: rows }, (_, i) => [rowStart + i, 1, contextStart, length - rows + i + 1] as const),
      )
      const whole = await attend(backend, plan, heads, false)
      for (const decode of decodesApart ? [false] : [false, true])
        expect(await attend(backend, { ...plan, segments }, heads, decode), `${plan.name}, decode ${decode}`).toEqual(whole)
    }
}

/** Rows that decode: among others, with whom they share keys, and alone. */
export async function checkDecoding(backend: Backend): Promise<void> {
  for (const heads of HEADS)
    for (const plan of [shared(), distant()]) {
      const together = await attend(backend, plan, heads, true)
      for (const [at, [, , start, length]] of plan.segments.entries()) {
        const alone = { ...plan, tokens: 1, segments: [[0, 1, start, length]] } as const
        expect(await attend(backend, alone, heads, true, at), `${plan.name}: row ${at}`).toEqual([together[at]])
      }
    }
}

/** What each row of a plan gets: its outputs and logsumexps. The rows' queries are those from `first` on of a longer list. */
async function attend(backend: Backend, plan: Plan, heads: Heads, decode: boolean, first = 0): Promise<number[][]> {
  const arena = backend.arena(1 << 20)
  const rows = (seed: number, length: number, width: number) => new Random(seed).normal([length, width])
  const upload = ({ shape, data }: Values) => {
    const bf16 = backend.activations === 'bf16' && data instanceof Float32Array
    const tensor = arena.tensor(shape, data instanceof Int32Array ? 'i32' : backend.activations)
    backend.upload(tensor, bf16 ? toBf16(data) : data)
    return tensor
  }
  const width = heads.heads * heads.headDim
  const q = upload(rows(1, first + plan.tokens, width)).rows(first, plan.tokens)
  const [k, v] = [2, 3].map((seed) => upload(rows(seed, plan.slots, heads.kvHeads * heads.headDim)))
  const { segments, context } = planValues(plan)
  const out = arena.tensor([plan.tokens, width], backend.activations)
  const lse = arena.tensor([plan.tokens, heads.heads])
  const given = { segments: upload(segments), context: upload(context), segmentCount: plan.segments.length }
  backend.ops.attention({ out, q, k: k!, v: v!, plan: given, lse, ...heads, decode })
  const [outs, lses] = await Promise.all([out, lse].map((tensor) => backend.download(tensor)))
  arena.close()
  const of = (values: TypedArray, row: number) => {
    const length = values.length / plan.tokens
    return Array.from(values.subarray(row * length, (row + 1) * length))
  }
  return Array.from({ length: plan.tokens }, (_, row) => [...of(outs!, row), ...of(lses!, row)])
}
