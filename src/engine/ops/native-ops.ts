// The ops of a native backend: shapes are checked here, addresses and sizes go to the library as scalars. One entry a function of
// kernels/arbor_ops.h, with the arguments in the header's order.

import { BackendError } from '../../errors'
import { type NativeCalls, nativeError } from './native-library'
import { NativeTensor } from './native-tensor'
import type { LoraGradSlice, LoraSlice, Ops, Tensor } from './ops'

const PARTS = 4 // most members a fused weight may have
const LORA_NUMBERS = 13

type Value = Tensor | Float64Array | number | null | undefined
type Bind = (op: string, name: string) => (...values: Value[]) => void

/** `stream` gives the stream's address, null once it is closed. */
export function nativeOps(calls: NativeCalls, stream: () => number | null): Ops {
  const bind: Bind = (op, name) => {
    const call = calls.call(name)
    return (...values) => {
      const scalars = values.map((value) =>
        value instanceof NativeTensor ? value.address : ((value ?? null) as number | Float64Array | null),
      )
      const answer = call(stream(), ...scalars) as number
      if (answer < 0) throw nativeError(calls.lastError(), op, answer)
    }
  }
  return { ...rowOps(bind), ...linearOps(bind), ...attentionOps(bind), ...vocabularyOps(bind), ...updateOps(bind) }
}

const native = (tensor: Tensor) => tensor as NativeTensor
const typeOf = (tensor: Tensor) => native(tensor).type
const lengthOf = (tensor: Tensor) => native(tensor).length

/** Columns of a matrix: elements per row of the first dimension. */
const width = (tensor: Tensor) => tensor.shape.slice(1).reduce((product, size) => product * size, 1)

/** Throws when a tensor that is given holds fewer elements than the op will touch. */
function need(op: string, count: number, tensors: Readonly<Record<string, Tensor | undefined>>): void {
  for (const name in tensors) {
    const tensor = tensors[name]
    if (tensor !== undefined && lengthOf(tensor) < count)
      throw new BackendError(`${op}: ${name} is [${tensor.shape}], but ${count} elements are needed.`, { op })
  }
}

function needEqual(op: string, what: string, sizes: readonly [number, number]): void {
  if (sizes[0] !== sizes[1]) throw new BackendError(`${op}: ${what} differ: ${sizes[0]} and ${sizes[1]}.`, { op })
}

function rowOps(bind: Bind) {
  const fill = bind('fill', 'arbor_fill')
  const copy = bind('copy', 'arbor_copy')
  const gatherRows = bind('gatherRows', 'arbor_gather_rows')
  const embed = bind('embed', 'arbor_embed')
  const embedBackward = bind('embedBackward', 'arbor_embed_backward')
  return {
    fill: (target, value) => fill(typeOf(target), target, lengthOf(target), value),
    copy(to, from) {
      needEqual('copy', 'sizes in bytes', [native(to).bytes, native(from).bytes])
      copy(to, from, native(to).bytes)
    },
    gatherRows({ out, from, rows }) {
      const count = lengthOf(rows)
      need('gatherRows', count * width(from), { out })
      gatherRows(out, from, rows, count, from.shape[0], width(from) * (from.dtype === 'bf16' ? 2 : 4))
    },
    embed({ out, table, ids }) {
      const [vocab, hidden] = table.shape as [number, number]
      need('embed', lengthOf(ids) * hidden, { out })
      embed(typeOf(out), out, table, typeOf(table), ids, lengthOf(ids), vocab, hidden)
    },
    embedBackward({ dTable, dOut, ids }) {
      const [vocab, hidden] = dTable.shape as [number, number]
      need('embedBackward', lengthOf(ids) * hidden, { dOut })
      embedBackward(typeOf(dOut), dTable, dOut, ids, lengthOf(ids), vocab, hidden)
    },
    ...normOps(bind),
  } satisfies Partial<Ops>
}

function normOps(bind: Bind) {
  const rmsNorm = bind('rmsNorm', 'arbor_rms_norm')
  const rmsNormBackward = bind('rmsNormBackward', 'arbor_rms_norm_backward')
  const swiglu = bind('swiglu', 'arbor_swiglu')
  const swigluBackward = bind('swigluBackward', 'arbor_swiglu_backward')
  return {
    rmsNorm({ y, rstd, x, weight, eps, delta, sum }) {
      const [tokens, hidden] = x.shape as [number, number]
      need('rmsNorm', tokens * hidden, { y, delta, sum })
      need('rmsNorm', tokens, { rstd })
      need('rmsNorm', hidden, { weight })
      rmsNorm(typeOf(x), y, rstd, sum, x, delta, weight, tokens, hidden, eps)
    },
    rmsNormBackward({ dx, dy, x, weight, rstd, dResidual, dWeight }) {
      const [tokens, hidden] = x.shape as [number, number]
      need('rmsNormBackward', tokens * hidden, { dx, dy, dResidual })
      need('rmsNormBackward', tokens, { rstd })
      need('rmsNormBackward', hidden, { weight, dWeight })
      rmsNormBackward(typeOf(x), dx, dy, x, weight, rstd, dResidual, dWeight, tokens, hidden)
    },
    swiglu({ y, gateUp }) {
      const [tokens, inner] = y.shape as [number, number]
      need('swiglu', 2 * tokens * inner, { gateUp })
      swiglu(typeOf(y), y, gateUp, tokens, inner)
    },
    swigluBackward({ dGateUp, dy, gateUp }) {
      const [tokens, inner] = dy.shape as [number, number]
      need('swigluBackward', 2 * tokens * inner, { dGateUp, gateUp })
      swigluBackward(typeOf(dy), dGateUp, dy, gateUp, tokens, inner)
    },
  } satisfies Partial<Ops>
}

/** The adapters of a linear as one packed argument, 13 numbers each (arbor_ops.h); null when there are none. */
function packLoras(
  op: string,
  slices: readonly (LoraSlice & Partial<LoraGradSlice>)[],
  weight: Tensor,
  tokens: number,
): Float64Array | null {
  if (slices.length === 0) return null
  const [out, inner] = weight.shape as [number, number]
  const packed = new Float64Array(LORA_NUMBERS * slices.length)
  for (const [i, { rowStart, rowCount, parts, rank, scale, a, b, xa, da, db }] of slices.entries()) {
    if (parts.length > PARTS)
      throw new BackendError(`${op}: an adapter has ${parts.length} parts, at most ${PARTS} are possible.`, { op })
    if (rowStart < 0 || rowStart + rowCount > tokens)
      throw new BackendError(`${op}: an adapter is on rows ${rowStart} to ${rowStart + rowCount} of ${tokens}.`, { op })
    need(op, parts.length * rank * inner, { a, da })
    need(op, out * rank, { b, db })
    needEqual(op, 'columns of xa and ranks of the adapter', [width(xa), parts.length * rank])
    need(op, rowCount * width(xa), { xa })
    const sizes = Array.from({ length: PARTS }, (_, p) => parts[p] ?? 0)
    const addresses = [a, b, xa, da, db].map((tensor) => (tensor === undefined ? 0 : native(tensor).address))
    packed.set([rowStart, rowCount, rank, scale, ...sizes, ...addresses], LORA_NUMBERS * i)
  }
  return packed
}

function linearOps(bind: Bind) {
  const linear = bind('linear', 'arbor_linear')
  const linearBackward = bind('linearBackward', 'arbor_linear_backward')
  return {
    linear({ y, x, weight, bias, loras = [], decode = false }) {
      const [out, inner] = weight.shape as [number, number]
      const tokens = x.shape[0]!
      needEqual('linear', 'columns of x and of the weight', [width(x), inner])
      need('linear', tokens * out, { y })
      need('linear', out, { bias })
      const adapters = packLoras('linear', loras, weight, tokens)
      const sizes = [tokens, inner, out, adapters, loras.length, Number(decode)]
      linear(typeOf(x), y, typeOf(y), x, weight, typeOf(weight), bias, ...sizes)
    },
    linearBackward({ dx, dy, x, weight, loras = [], dWeight, dBias }) {
      const [out, inner] = weight.shape as [number, number]
      const tokens = dy.shape[0]!
      needEqual('linearBackward', 'columns of dy and rows of the weight', [width(dy), out])
      need('linearBackward', tokens * inner, { dx, x })
      need('linearBackward', out * inner, { dWeight })
      need('linearBackward', out, { dBias })
      const sizes = [tokens, inner, out, packLoras('linearBackward', loras, weight, tokens), loras.length]
      linearBackward(typeOf(dy), dx, dy, x, weight, typeOf(weight), dWeight, dBias, ...sizes)
    },
  } satisfies Partial<Ops>
}

function attentionOps(bind: Bind) {
  const attention = bind('attention', 'arbor_attention')
  const attentionBackward = bind('attentionBackward', 'arbor_attention_backward')
  return {
    attention({ out, q, k, v, plan, heads, kvHeads, headDim, lse }) {
      const [tokens, slots] = [q.shape[0]!, k.shape[0]!]
      const { segments, context, segmentCount } = plan
      need('attention', tokens * heads * headDim, { out, q })
      need('attention', slots * kvHeads * headDim, { k, v })
      need('attention', tokens * heads, { lse })
      need('attention', segmentCount * 4, { segments })
      const sizes = [segmentCount, lengthOf(context), tokens, slots, heads, kvHeads, headDim]
      attention(typeOf(q), out, lse, q, k, v, segments, context, ...sizes)
    },
    attentionBackward({ dq, dk, dv, dOut, out, q, k, v, lse, plan, heads, kvHeads, headDim }) {
      const [tokens, slots] = [q.shape[0]!, k.shape[0]!]
      const { segments, context, segmentCount } = plan
      need('attentionBackward', tokens * heads * headDim, { dq, dOut, out, q })
      need('attentionBackward', slots * kvHeads * headDim, { dk, dv, k, v })
      need('attentionBackward', tokens * heads, { lse })
      need('attentionBackward', segmentCount * 4, { segments })
      const sizes = [segmentCount, lengthOf(context), tokens, slots, heads, kvHeads, headDim]
      attentionBackward(typeOf(q), dq, dk, dv, dOut, out, q, k, v, lse, segments, context, ...sizes)
    },
    ...ropeOps(bind),
  } satisfies Partial<Ops>
}

function ropeOps(bind: Bind) {
  const ropeStoreKv = bind('ropeStoreKv', 'arbor_rope_store_kv')
  const ropeStoreKvBackward = bind('ropeStoreKvBackward', 'arbor_rope_store_kv_backward')
  return {
    ropeStoreKv({ qkv, q, k, v, positions, slots, rope, heads, kvHeads, headDim }) {
      const [tokens, slotCount] = [lengthOf(positions), k.shape[0]!]
      need('ropeStoreKv', tokens, { slots })
      need('ropeStoreKv', tokens * (heads + 2 * kvHeads) * headDim, { qkv })
      need('ropeStoreKv', tokens * heads * headDim, { q })
      need('ropeStoreKv', slotCount * kvHeads * headDim, { k, v })
      needEqual('ropeStoreKv', 'columns of rope and headDim', [width(rope), headDim])
      const sizes = [tokens, slotCount, rope.shape[0]!, heads, kvHeads, headDim]
      ropeStoreKv(typeOf(qkv), qkv, q, k, v, positions, slots, rope, ...sizes)
    },
    ropeStoreKvBackward({ dqkv, dq, dk, dv, positions, slots, rope, heads, kvHeads, headDim }) {
      const [tokens, slotCount] = [lengthOf(positions), dk.shape[0]!]
      need('ropeStoreKvBackward', tokens, { slots })
      need('ropeStoreKvBackward', tokens * (heads + 2 * kvHeads) * headDim, { dqkv })
      need('ropeStoreKvBackward', tokens * heads * headDim, { dq })
      need('ropeStoreKvBackward', slotCount * kvHeads * headDim, { dk, dv })
      needEqual('ropeStoreKvBackward', 'columns of rope and headDim', [width(rope), headDim])
      const sizes = [tokens, slotCount, rope.shape[0]!, heads, kvHeads, headDim]
      ropeStoreKvBackward(typeOf(dqkv), dqkv, dq, dk, dv, positions, slots, rope, ...sizes)
    },
  } satisfies Partial<Ops>
}

function vocabularyOps(bind: Bind) {
  const logprob = bind('logprob', 'arbor_logprob')
  const logprobBackward = bind('logprobBackward', 'arbor_logprob_backward')
  const sample = bind('sample', 'arbor_sample')
  return {
    logprob({ logprobs, entropies, lse, logits, hidden, rows, targets, head, temperature }) {
      const pairs = lengthOf(rows)
      const [vocab, size] = head.shape as [number, number]
      needEqual('logprob', 'columns of hidden and of the head', [width(hidden), size])
      need('logprob', pairs, { logprobs, entropies, lse, targets })
      need('logprob', pairs * vocab, { logits })
      const sizes = [pairs, hidden.shape[0]!, vocab, size]
      const given = [logprobs, entropies, lse, logits, hidden, rows, targets, head]
      logprob(typeOf(hidden), ...given, typeOf(head), ...sizes, temperature)
    },
    logprobBackward({ dHidden, dLogprobs, dEntropies, entropies, lse, logits, hidden, rows, targets, head, temperature, dHead }) {
      const pairs = lengthOf(rows)
      const [vocab, size] = head.shape as [number, number]
      needEqual('logprobBackward', 'columns of hidden and of the head', [width(hidden), size])
      need('logprobBackward', pairs, { dLogprobs, dEntropies, entropies, lse, targets })
      need('logprobBackward', lengthOf(hidden), { dHidden })
      need('logprobBackward', vocab * size, { dHead })
      need('logprobBackward', pairs * vocab, { logits })
      const given = [dHidden, dHead, dLogprobs, dEntropies, entropies, lse, logits, hidden, rows, targets, head]
      logprobBackward(typeOf(hidden), ...given, typeOf(head), pairs, hidden.shape[0], vocab, size, temperature)
    },
    sample({ logits, floats, ints, history, allowed, tokens, logprobs }) {
      const [rows, vocab] = logits.shape as [number, number]
      need('sample', rows * 6, { floats })
      need('sample', rows * 4, { ints })
      need('sample', rows, { tokens })
      need('sample', rows * 2, { logprobs })
      if (allowed) needEqual('sample', 'words of a row of allowed', [width(allowed), Math.ceil(vocab / 32)])
      const sizes = [rows, vocab, lengthOf(history), allowed?.shape[0] ?? 0]
      sample(logits, floats, ints, history, allowed, tokens, logprobs, ...sizes)
    },
  } satisfies Partial<Ops>
}

function updateOps(bind: Bind) {
  const sumSquares = bind('sumSquares', 'arbor_sum_squares')
  const adamw = bind('adamw', 'arbor_adamw')
  return {
    sumSquares: ({ out, x }) => sumSquares(out, x, lengthOf(x)),
    adamw({ param, grad, m, v, learningRate, beta1, beta2, eps, weightDecay, gradScale, step }) {
      const count = lengthOf(param)
      need('adamw', count, { grad, m, v })
      adamw(param, grad, m, v, count, learningRate, beta1, beta2, eps, weightDecay, gradScale, step)
    },
  } satisfies Partial<Ops>
}
