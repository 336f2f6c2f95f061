// Attention in TensorFlow.js: segment by segment, keys and values gathered by the plan, a dense causal mask, autodiff backward.

import type { Tensor3D, Tensor as TfTensor } from '@tensorflow/tfjs'
import type { AttentionPlan, Ops, Tensor } from './ops'
import { load, store, type Tf, values } from './tfjs-memory'

interface Heads {
  readonly heads: number
  readonly kvHeads: number
  readonly headDim: number
}

interface Segment {
  readonly rowStart: number
  readonly rowCount: number
  readonly slots: Int32Array // of the context, own rows last
}

/** Not minus infinity, whose gradient would be NaN: exp of it is zero all the same. */
const HIDDEN = -1e30

export function tfjsAttention(tf: Tf): Pick<Ops, 'attention' | 'attentionBackward'> {
  /** Masked scores [kvHeads, group, rows, context] of a segment. */
  const scores = (q: TfTensor, k: TfTensor, { heads, kvHeads, headDim }: Heads): TfTensor => {
    const [rows, context] = [q.shape[0]!, k.shape[0]!]
    const queries = q.reshape([rows, heads, headDim]).transpose([1, 0, 2]).reshape([kvHeads, -1, headDim])
    const keys = k.reshape([context, kvHeads, headDim]).transpose([1, 2, 0])
    const products = tf.matMul(queries as Tensor3D, keys as Tensor3D).mul(1 / Math.sqrt(headDim))
    return products.reshape([kvHeads, heads / kvHeads, rows, context]).add(causalMask(tf, rows, context))
  }
  const output = (q: TfTensor, k: TfTensor, v: TfTensor, dims: Heads): TfTensor => {
    const { heads, kvHeads, headDim } = dims
    const rows = q.shape[0]!
    const weights = tf.softmax(scores(q, k, dims)).reshape([kvHeads, -1, k.shape[0]!])
    const vectors = v.reshape([-1, kvHeads, headDim]).transpose([1, 0, 2])
    const mixed = tf.matMul(weights as Tensor3D, vectors as Tensor3D).reshape([heads, rows, headDim])
    return mixed.transpose([1, 0, 2]).reshape([rows, heads * headDim])
  }
  const rowsOf = (tensor: Tensor, slots: Int32Array) => tf.gather(load(tf, tensor), tf.tensor1d(slots, 'int32'))

  return {
    attention({ out, q, k, v, plan, lse, ...dims }) {
      for (const { rowStart, rowCount, slots } of segments(plan)) {
        const [queries, keys] = [load(tf, q.rows(rowStart, rowCount)), rowsOf(k, slots)]
        store(out.rows(rowStart, rowCount), output(queries, keys, rowsOf(v, slots), dims))
        const sums =
          lse &&
          tf
            .logSumExp(scores(queries, keys, dims), -1)
            .reshape([dims.heads, rowCount])
            .transpose()
        if (lse && sums) store(lse.rows(rowStart, rowCount), sums)
      }
    },
    attentionBackward({ dq, dk, dv, dOut, q, k, v, plan, heads, kvHeads, headDim }) {
      const f = (a: TfTensor, b: TfTensor, c: TfTensor) => output(a, b, c, { heads, kvHeads, headDim })
      values(dk).fill(0)
      values(dv).fill(0)
      for (const { rowStart, rowCount, slots } of segments(plan)) {
        const inputs = [load(tf, q.rows(rowStart, rowCount)), rowsOf(k, slots), rowsOf(v, slots)]
        const [gq, gk, gv] = tf.grads(f)(inputs, load(tf, dOut.rows(rowStart, rowCount)))
        store(dq.rows(rowStart, rowCount), gq!)
        addRows(dk, slots, gk!)
        addRows(dv, slots, gv!)
      }
    },
  }
}

/** Row i of a segment sees the first context - rows + i + 1 entries: 0 there, HIDDEN after. */
function causalMask(tf: Tf, rows: number, context: number): TfTensor {
  const mask = new Float32Array(rows * context)
  for (let i = 0; i < rows; i++) mask.fill(HIDDEN, i * context + context - rows + i + 1, (i + 1) * context)
  return tf.tensor2d(mask, [rows, context])
}

function segments(plan: AttentionPlan): Segment[] {
  const table = values(plan.segments)
  const context = values(plan.context) as Int32Array
  return Array.from({ length: plan.segmentCount }, (_, s) => {
    const [rowStart, rowCount, contextStart, contextLength] = table.subarray(4 * s, 4 * s + 4)
    return { rowStart: rowStart!, rowCount: rowCount!, slots: context.subarray(contextStart!, contextStart! + contextLength!) }
  })
}

function addRows(to: Tensor, slots: Int32Array, from: TfTensor): void {
  const added = from.dataSync()
  const target = values(to)
  const width = to.shape[1]!
  for (const [i, slot] of slots.entries()) for (let j = 0; j < width; j++) target[slot * width + j]! += added[i * width + j]!
}
