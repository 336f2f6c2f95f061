// The ops of a native backend: shapes are checked here, addresses and sizes go to the library as scalars. One entry a function of
// kernels/arbor_ops.h, with the arguments in the header's order.

import { at, lengthOf, native, need, needEqual, typeOf, width } from './native-arguments'
import { type NativeCalls, nativeError } from './native-library'
import { PackedLoras } from './native-loras'
import type { LoraGradSlice, LoraSlice, Ops } from './ops'

type Value = Float64Array | number | null
type Bind = (op: string, name: string) => (...values: Value[]) => void

/** `stream` gives the stream's address, null once it is closed. A step makes thousands of these calls: nothing is allocated for one. */
export function nativeOps(calls: NativeCalls, stream: () => number | null): Ops {
  const bind: Bind = (op, name) => {
    const call = calls.call(name)
    return (...values) => {
      const answer = call(stream(), ...values) as number
      if (answer < 0) throw nativeError(calls.lastError(), op, answer)
    }
  }
  return { ...rowOps(bind), ...linearOps(bind), ...attentionOps(bind), ...vocabularyOps(bind), ...updateOps(bind) }
}

function rowOps(bind: Bind) {
  const fill = bind('fill', 'arbor_fill')
  const copy = bind('copy', 'arbor_copy')
  const gatherRows = bind('gatherRows', 'arbor_gather_rows')
  const embed = bind('embed', 'arbor_embed')
  const embedBackward = bind('embedBackward', 'arbor_embed_backward')
  return {
    fill: (target, value) => fill(typeOf(target), at(target), lengthOf(target), value),
    copy(to, from) {
      needEqual('copy', 'sizes in bytes', native(to).bytes, native(from).bytes)
      copy(at(to), at(from), native(to).bytes)
    },
    gatherRows({ out, from, rows }) {
      const count = lengthOf(rows)
      need('gatherRows', count * width(from), 'out', out)
      gatherRows(at(out), at(from), at(rows), count, from.shape[0]!, width(from) * (from.dtype === 'bf16' ? 2 : 4))
    },
    embed({ out, table, ids }) {
      const [vocab, hidden] = table.shape as [number, number]
      need('embed', lengthOf(ids) * hidden, 'out', out)
      embed(typeOf(out), at(out), at(table), typeOf(table), at(ids), lengthOf(ids), vocab, hidden)
    },
    embedBackward({ dTable, dOut, ids }) {
      const [vocab, hidden] = dTable.shape as [number, number]
      need('embedBackward', lengthOf(ids) * hidden, 'dOut', dOut)
      embedBackward(typeOf(dOut), at(dTable), at(dOut), at(ids), lengthOf(ids), vocab, hidden)
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
      need('rmsNorm', tokens * hidden, 'y delta sum', y, delta, sum)
      need('rmsNorm', tokens, 'rstd', rstd)
      need('rmsNorm', hidden, 'weight', weight)
      rmsNorm(typeOf(x), at(y), at(rstd), at(sum), at(x), at(delta), at(weight), tokens, hidden, eps)
    },
    rmsNormBackward({ dx, dy, x, weight, rstd, dResidual, dWeight }) {
      const [tokens, hidden] = x.shape as [number, number]
      need('rmsNormBackward', tokens * hidden, 'dx dy dResidual', dx, dy, dResidual)
      need('rmsNormBackward', tokens, 'rstd', rstd)
      need('rmsNormBackward', hidden, 'weight dWeight', weight, dWeight)
      const given = [at(dx), at(dy), at(x), at(weight), at(rstd), at(dResidual), at(dWeight)] as const
      rmsNormBackward(typeOf(x), ...given, tokens, hidden)
    },
    swiglu({ y, gateUp }) {
      const [tokens, inner] = y.shape as [number, number]
      need('swiglu', 2 * tokens * inner, 'gateUp', gateUp)
      swiglu(typeOf(y), at(y), at(gateUp), tokens, inner)
    },
    swigluBackward({ dGateUp, dy, gateUp, y }) {
      const [tokens, inner] = dy.shape as [number, number]
      need('swigluBackward', 2 * tokens * inner, 'dGateUp gateUp', dGateUp, gateUp)
      need('swigluBackward', tokens * inner, 'y', y)
      swigluBackward(typeOf(dy), at(dGateUp), at(y), at(dy), at(gateUp), tokens, inner)
    },
  } satisfies Partial<Ops>
}

const NO_ADAPTERS: readonly (LoraSlice & Partial<LoraGradSlice>)[] = []

function linearOps(bind: Bind) {
  const linear = bind('linear', 'arbor_linear')
  const layAdapters = bind('layAdapters', 'arbor_lay_adapters')
  const linearBackward = bind('linearBackward', 'arbor_linear_backward')
  const adapters = new PackedLoras()
  return {
    linear({ y, x, weight, bias, loras = NO_ADAPTERS, decode = false, laid = false }) {
      const [out, inner] = weight.shape as [number, number]
      const tokens = x.shape[0]!
      needEqual('linear', 'columns of x and of the weight', width(x), inner)
      need('linear', tokens * out, 'y', y)
      need('linear', out, 'bias', bias)
      const packed = adapters.pack('linear', loras, weight, tokens)
      const given = [at(y), typeOf(y), at(x), at(weight), typeOf(weight), at(bias)] as const
      linear(typeOf(x), ...given, tokens, inner, out, packed, loras.length, decode ? 1 + Number(laid) : 0)
    },
    layAdapters(of) {
      if (of.length === 0) return
      const { weights, loras, count } = adapters.packAll(of)
      layAdapters(typeOf(of[0]!.weight), weights, of.length, loras, count)
    },
    linearBackward({ dx, dy, x, weight, loras = NO_ADAPTERS, dWeight, dBias }) {
      const [out, inner] = weight.shape as [number, number]
      const tokens = dy.shape[0]!
      needEqual('linearBackward', 'columns of dy and rows of the weight', width(dy), out)
      need('linearBackward', tokens * inner, 'dx x', dx, x)
      need('linearBackward', out * inner, 'dWeight', dWeight)
      need('linearBackward', out, 'dBias', dBias)
      const packed = adapters.pack('linearBackward', loras, weight, tokens)
      const given = [at(dx), at(dy), at(x), at(weight), typeOf(weight), at(dWeight), at(dBias)] as const
      linearBackward(typeOf(dy), ...given, tokens, inner, out, packed, loras.length)
    },
  } satisfies Partial<Ops>
}

function attentionOps(bind: Bind) {
  const attention = bind('attention', 'arbor_attention')
  const attentionBackward = bind('attentionBackward', 'arbor_attention_backward')
  return {
    attention({ out, q, k, v, plan, heads, kvHeads, headDim, lse, decode = false, samePlan = false }) {
      const tokens = q.shape[0]!
      const slots = k.shape[0]!
      const { segments, context, segmentCount } = plan
      need('attention', tokens * heads * headDim, 'out q', out, q)
      need('attention', slots * kvHeads * headDim, 'k v', k, v)
      need('attention', tokens * heads, 'lse', lse)
      need('attention', segmentCount * 4, 'segments', segments)
      const given = [at(out), at(lse), at(q), at(k), at(v), at(segments), at(context)] as const
      const sizes = [segmentCount, lengthOf(context), tokens, slots, heads, kvHeads, headDim] as const
      attention(typeOf(q), ...given, ...sizes, Number(decode), Number(samePlan))
    },
    attentionBackward({ dq, dk, dv, dOut, out, q, k, v, lse, plan, heads, kvHeads, headDim, samePlan = false }) {
      const tokens = q.shape[0]!
      const slots = k.shape[0]!
      const { segments, context, segmentCount } = plan
      need('attentionBackward', tokens * heads * headDim, 'dq dOut out q', dq, dOut, out, q)
      need('attentionBackward', slots * kvHeads * headDim, 'dk dv k v', dk, dv, k, v)
      need('attentionBackward', tokens * heads, 'lse', lse)
      need('attentionBackward', segmentCount * 4, 'segments', segments)
      const given = [at(dq), at(dk), at(dv), at(dOut), at(out), at(q), at(k), at(v), at(lse), at(segments), at(context)] as const
      const sizes = [segmentCount, lengthOf(context), tokens, slots, heads, kvHeads, headDim] as const
      attentionBackward(typeOf(q), ...given, ...sizes, Number(samePlan))
    },
    ...ropeOps(bind),
  } satisfies Partial<Ops>
}

function ropeOps(bind: Bind) {
  const ropeStoreKv = bind('ropeStoreKv', 'arbor_rope_store_kv')
  const ropeStoreKvBackward = bind('ropeStoreKvBackward', 'arbor_rope_store_kv_backward')
  return {
    ropeStoreKv({ qkv, q, k, v, positions, slots, rope, heads, kvHeads, headDim }) {
      const tokens = lengthOf(positions)
      const slotCount = k.shape[0]!
      need('ropeStoreKv', tokens, 'slots', slots)
      need('ropeStoreKv', tokens * (heads + 2 * kvHeads) * headDim, 'qkv', qkv)
      need('ropeStoreKv', tokens * heads * headDim, 'q', q)
      need('ropeStoreKv', slotCount * kvHeads * headDim, 'k v', k, v)
      needEqual('ropeStoreKv', 'columns of rope and headDim', width(rope), headDim)
      const given = [at(qkv), at(q), at(k), at(v), at(positions), at(slots), at(rope)] as const
      ropeStoreKv(typeOf(qkv), ...given, tokens, slotCount, rope.shape[0]!, heads, kvHeads, headDim)
    },
    ropeStoreKvBackward({ dqkv, dq, dk, dv, positions, slots, rope, heads, kvHeads, headDim }) {
      const tokens = lengthOf(positions)
      const slotCount = dk.shape[0]!
      need('ropeStoreKvBackward', tokens, 'slots', slots)
      need('ropeStoreKvBackward', tokens * (heads + 2 * kvHeads) * headDim, 'dqkv', dqkv)
      need('ropeStoreKvBackward', tokens * heads * headDim, 'dq', dq)
      need('ropeStoreKvBackward', slotCount * kvHeads * headDim, 'dk dv', dk, dv)
      needEqual('ropeStoreKvBackward', 'columns of rope and headDim', width(rope), headDim)
      const given = [at(dqkv), at(dq), at(dk), at(dv), at(positions), at(slots), at(rope)] as const
      ropeStoreKvBackward(typeOf(dqkv), ...given, tokens, slotCount, rope.shape[0]!, heads, kvHeads, headDim)
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
      needEqual('logprob', 'columns of hidden and of the head', width(hidden), size)
      need('logprob', pairs, 'logprobs entropies lse targets', logprobs, entropies, lse, targets)
      need('logprob', pairs * vocab, 'logits', logits)
      const given = [logprobs, entropies, lse, logits, hidden, rows, targets, head].map(at)
      logprob(typeOf(hidden), ...given, typeOf(head), pairs, hidden.shape[0]!, vocab, size, temperature)
    },
    logprobBackward({ dHidden, dHead, dLogprobs, dEntropies, forward = false, ...pair }) {
      const { logprobs, entropies, lse, logits, hidden, rows, targets, head, temperature } = pair
      const pairs = lengthOf(rows)
      const [vocab, size] = head.shape as [number, number]
      needEqual('logprobBackward', 'columns of hidden and of the head', width(hidden), size)
      need('logprobBackward', pairs, 'dLogprobs dEntropies entropies lse', dLogprobs, dEntropies, entropies, lse)
      need('logprobBackward', pairs, 'logprobs targets', logprobs, targets)
      need('logprobBackward', lengthOf(hidden), 'dHidden', dHidden)
      need('logprobBackward', vocab * size, 'dHead', dHead)
      need('logprobBackward', pairs * vocab, 'logits', logits)
      const statistics = [forward ? logprobs : undefined, entropies, lse]
      const given = [dHidden, dHead, dLogprobs, dEntropies, ...statistics, logits, hidden, rows, targets, head].map(at)
      logprobBackward(typeOf(hidden), ...given, typeOf(head), pairs, hidden.shape[0]!, vocab, size, temperature)
    },
    sample({ logits, floats, ints, history, allowed, tokens, logprobs }) {
      const [rows, vocab] = logits.shape as [number, number]
      need('sample', rows * 6, 'floats', floats)
      need('sample', rows * 4, 'ints', ints)
      need('sample', rows, 'tokens', tokens)
      need('sample', rows * 2, 'logprobs', logprobs)
      if (allowed) needEqual('sample', 'words of a row of allowed', width(allowed), Math.ceil(vocab / 32))
      const given = [logits, floats, ints, history, allowed, tokens, logprobs].map(at)
      sample(...given, rows, vocab, lengthOf(history), allowed?.shape[0] ?? 0)
    },
  } satisfies Partial<Ops>
}

function updateOps(bind: Bind) {
  const sumSquares = bind('sumSquares', 'arbor_sum_squares')
  const adamw = bind('adamw', 'arbor_adamw')
  return {
    sumSquares: ({ out, x }) => sumSquares(at(out), at(x), lengthOf(x)),
    adamw({ param, grad, m, v, learningRate, beta1, beta2, eps, weightDecay, gradScale, step }) {
      const count = lengthOf(param)
      need('adamw', count, 'grad m v', grad, m, v)
      adamw(at(param), at(grad), at(m), at(v), count, learningRate, beta1, beta2, eps, weightDecay, gradScale, step)
    },
  } satisfies Partial<Ops>
}
