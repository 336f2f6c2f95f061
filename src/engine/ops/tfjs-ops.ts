// The ops in TensorFlow.js. Each forward is a plain formula; each backward is the autodiff of that formula, so that the backwards
// derived by hand elsewhere have a judge that shares nothing with them. Naive on purpose: dense masks, gathers, no paging.

import type { Tensor2D, Tensor as TfTensor } from '@tensorflow/tfjs'
import { sampleToken } from '../sampling'
import type { LoraSlice, Ops, Tensor } from './ops'
import { tfjsAttention } from './tfjs-attention'
import { accumulate, load, store, type Tf, values } from './tfjs-memory'

/** Pairs of `logprob` computed together: bounds the logits in memory at once. */
const PAIR_CHUNK = 64

export function tfjsOps(tf: Tf): Ops {
  return {
    ...rowOps(tf),
    ...normOps(tf),
    ...linearOps(tf),
    ...ropeOps(tf),
    ...tfjsAttention(tf),
    ...swigluOps(tf),
    ...logprobOps(tf),
    ...optimizerOps(tf),
    sample,
  }
}

function rowOps(tf: Tf): Pick<Ops, 'fill' | 'copy' | 'gatherRows' | 'embed' | 'embedBackward'> {
  const gather = (from: Tensor, rows: Tensor) => tf.gather(load(tf, from), load(tf, rows) as Tensor2D)
  return {
    fill: (target, value) => void values(target).fill(value),
    copy: (to, from) => values(to).set(values(from)),
    gatherRows: ({ out, from, rows }) => store(out, gather(from, rows)),
    embed: ({ out, table, ids }) => store(out, gather(table, ids)),
    embedBackward({ dTable, dOut, ids }) {
      const look = (table: TfTensor) => tf.gather(table, load(tf, ids) as Tensor2D)
      accumulate(dTable, tf.grad(look)(load(tf, dTable), load(tf, dOut))) // linear in the table: its values don't matter
    },
  }
}

function normOps(tf: Tf): Pick<Ops, 'rmsNorm' | 'rmsNormBackward'> {
  const meanSquare = (x: TfTensor) => x.square().mean(-1, true)
  const norm = (x: TfTensor, weight: TfTensor, eps: TfTensor) => x.mul(meanSquare(x).add(eps).rsqrt()).mul(weight)
  return {
    rmsNorm({ y, rstd, x, weight, eps, delta, sum }) {
      const input = delta ? load(tf, x).add(load(tf, delta)) : load(tf, x)
      store(y, norm(input, load(tf, weight), tf.scalar(eps)))
      store(rstd, meanSquare(input).add(eps).rsqrt())
      if (sum) store(sum, input)
    },
    rmsNormBackward({ dx, dy, x, weight, rstd, dResidual, dWeight }) {
      const input = load(tf, x)
      // The forward's eps, which the arguments carry only inside rstd = 1 / sqrt(mean square + eps).
      const eps = load(tf, rstd).reshape([-1, 1]).pow(-2).sub(meanSquare(input))
      const f = (a: TfTensor, w: TfTensor) => norm(a, w, eps)
      const [gx, gw] = tf.grads(f)([input, load(tf, weight)], load(tf, dy))
      if (dWeight) accumulate(dWeight, gw!)
      store(dx, dResidual ? gx!.add(load(tf, dResidual)) : gx!)
    },
  }
}

function linearOps(tf: Tf): Pick<Ops, 'linear' | 'layAdapters' | 'linearBackward'> {
  const product = (x: TfTensor, w: TfTensor) => tf.matMul(x as Tensor2D, w as Tensor2D, false, true)
  const low = ({ parts, rank, scale }: LoraSlice) => {
    return (x: TfTensor, a: TfTensor, b: TfTensor): TfTensor => {
      const columns = parts.map((out, i) => {
        const start = parts.slice(0, i).reduce((sum, n) => sum + n, 0)
        const xa = product(x, a.slice([i * rank, 0], [rank, -1]))
        return product(xa, b.slice([start, 0], [out, -1]))
      })
      return tf.concat(columns, 1).mul(scale)
    }
  }
  return {
    linear({ y, x, weight, bias, loras }) {
      const base = product(load(tf, x), load(tf, weight))
      store(y, bias ? base.add(load(tf, bias)) : base)
      for (const slice of loras ?? []) {
        const [rows, a, b] = [x.rows(slice.rowStart, slice.rowCount), load(tf, slice.a), load(tf, slice.b)]
        store(slice.xa, product(load(tf, rows), a))
        accumulate(y.rows(slice.rowStart, slice.rowCount), low(slice)(load(tf, rows), a, b))
      }
    },
    layAdapters() {},
    linearBackward({ dx, dy, x: given, weight, loras, dWeight, dBias }) {
      const x = given ?? dx! // linear: the point does not matter to dx
      const affine = (input: TfTensor, w: TfTensor, bias: TfTensor) => product(input, w).add(bias)
      const gradient = load(tf, dy)
      const inputs = [load(tf, x), load(tf, weight), tf.zeros([weight.shape[0]!])]
      const [gx, gw, gb] = tf.grads(affine)(inputs, gradient)
      if (dx) store(dx, gx!)
      if (dWeight) accumulate(dWeight, gw!)
      if (dBias) accumulate(dBias, gb!)
      for (const slice of loras ?? []) {
        const rows = (tensor: Tensor) => tensor.rows(slice.rowStart, slice.rowCount)
        const [lx, la, lb] = tf.grads(low(slice))([load(tf, rows(x)), load(tf, slice.a), load(tf, slice.b)], load(tf, rows(dy)))
        if (dx) accumulate(rows(dx), lx!)
        if (given) accumulate(slice.da, la!)
        if (given) accumulate(slice.db, lb!)
      }
    },
  }
}

function ropeOps(tf: Tf): Pick<Ops, 'ropeStoreKv' | 'ropeStoreKvBackward'> {
  type Places = Pick<Parameters<Ops['ropeStoreKv']>[0], 'positions' | 'rope' | 'heads' | 'kvHeads' | 'headDim'>
  /** [tokens, (heads + 2 kvHeads) * headDim] with q and k rotated, v as it is. */
  const rotate = ({ positions, rope, heads, kvHeads, headDim }: Places) => {
    const angles = tf.gather(load(tf, rope), load(tf, positions) as Tensor2D).expandDims(1)
    const [cos, sin] = tf.split(angles, 2, 2) as [TfTensor, TfTensor]
    return (qkv: TfTensor): TfTensor => {
      const all = qkv.reshape([-1, heads + 2 * kvHeads, headDim])
      const [turned, v] = tf.split(all, [heads + kvHeads, kvHeads], 1) as [TfTensor, TfTensor]
      const [first, second] = tf.split(turned, 2, 2) as [TfTensor, TfTensor]
      const rotated = tf.concat([first.mul(cos).sub(second.mul(sin)), second.mul(cos).add(first.mul(sin))], 2)
      return tf.concat([rotated, v], 1).reshape(qkv.shape)
    }
  }
  return {
    ropeStoreKv({ qkv, q, k, v, slots, ...places }) {
      const { heads, kvHeads, headDim } = places
      const widths = [heads, kvHeads, kvHeads].map((n) => n * headDim)
      const [rq, rk, rv] = tf.split(rotate(places)(load(tf, qkv)), widths, 1) as [TfTensor, TfTensor, TfTensor]
      store(q, rq)
      for (const [to, from] of [[k, rk] as const, [v, rv] as const]) {
        const rows = from.dataSync()
        const width = kvHeads * headDim
        for (const [i, slot] of values(slots).entries())
          values(to).set(rows.subarray(i * width, (i + 1) * width) as Float32Array, slot * width)
      }
    },
    ropeStoreKvBackward({ dqkv, dq, dk, dv, slots, ...places }) {
      const own = (from: Tensor) => tf.gather(load(tf, from), load(tf, slots) as Tensor2D)
      const gradient = tf.concat([load(tf, dq), own(dk), own(dv)], 1)
      store(dqkv, tf.grad(rotate(places))(load(tf, dqkv).zerosLike(), gradient)) // linear: the point does not matter
    },
  }
}

function swigluOps(tf: Tf): Pick<Ops, 'swiglu' | 'swigluBackward'> {
  const f = (gateUp: TfTensor): TfTensor => {
    const [gate, up] = tf.split(gateUp, 2, 1) as [TfTensor, TfTensor]
    return gate.mul(gate.sigmoid()).mul(up)
  }
  return {
    swiglu: ({ y, gateUp }) => store(y, f(load(tf, gateUp))),
    swigluBackward({ dGateUp, dy, gateUp, y }) {
      const output = y && f(load(tf, gateUp))
      store(dGateUp, tf.grad(f)(load(tf, gateUp), load(tf, dy)))
      if (output) store(y, output)
    },
  }
}

function logprobOps(tf: Tf): Pick<Ops, 'logprob' | 'logprobBackward'> {
  type Pairs = { readonly targets: TfTensor; readonly temperature: number }
  /** Logprob of the target and entropy, stacked [2, pairs]. */
  const statistics = (hidden: TfTensor, head: TfTensor, { targets, temperature }: Pairs): TfTensor => {
    const all = tf.logSoftmax(tf.matMul(hidden as Tensor2D, head as Tensor2D, false, true).div(temperature))
    const chosen = all.mul(tf.oneHot(targets as Tensor2D, head.shape[0]!)).sum(-1)
    return tf.stack([chosen, all.exp().mul(all).sum(-1).neg()])
  }
  const chunks = (pairs: number) => Array.from({ length: Math.ceil(pairs / PAIR_CHUNK) }, (_, i) => i * PAIR_CHUNK)
  const ops: Pick<Ops, 'logprob' | 'logprobBackward'> = {
    logprob({ logprobs, entropies, lse, hidden, rows, targets, head, temperature }) {
      const [states, weights] = [load(tf, hidden), load(tf, head)]
      for (const start of chunks(rows.shape[0]!)) {
        const part = (tensor: Tensor) => tensor.rows(start, Math.min(PAIR_CHUNK, rows.shape[0]! - start))
        tf.tidy(() => {
          const own = tf.gather(states, load(tf, part(rows)) as Tensor2D)
          const [chosen, entropy] = tf.unstack(statistics(own, weights, { targets: load(tf, part(targets)), temperature }))
          store(part(logprobs), chosen!)
          store(part(entropies), entropy!)
          store(
            part(lse),
            tf
              .matMul(own as Tensor2D, weights as Tensor2D, false, true)
              .div(temperature)
              .logSumExp(-1),
          )
        })
      }
    },
    logprobBackward({ dHidden, dLogprobs, dEntropies, dHead, forward = false, ...pair }) {
      if (forward) ops.logprob(pair)
      const { hidden, rows, targets, head, temperature } = pair
      const [states, weights] = [load(tf, hidden), load(tf, head)]
      values(dHidden).fill(0)
      for (const start of chunks(rows.shape[0]!)) {
        const part = (tensor: Tensor) => tensor.rows(start, Math.min(PAIR_CHUNK, rows.shape[0]! - start))
        tf.tidy(() => {
          const pairs = { targets: load(tf, part(targets)), temperature }
          const f = (all: TfTensor, w: TfTensor) => statistics(tf.gather(all, load(tf, part(rows)) as Tensor2D), w, pairs)
          const dl = load(tf, part(dLogprobs))
          const dy = tf.stack([dl, dEntropies ? load(tf, part(dEntropies)) : dl.zerosLike()])
          const [gx, gw] = tf.grads(f)([states, weights], dy)
          accumulate(dHidden, gx!)
          if (dHead) accumulate(dHead, gw!)
        })
      }
    },
  }
  return ops
}

const sample: Ops['sample'] = ({ logits, floats, ints, history, allowed, tokens, logprobs }) => {
  for (let row = 0; row < logits.shape[0]!; row++) {
    const [temperature, topP, minP, repetitionPenalty, u] = values(floats).subarray(6 * row, 6 * row + 5)
    const [topK, start, count, mask] = values(ints).subarray(4 * row, 4 * row + 4)
    const params = {
      temperature: temperature!,
      topP: topP!,
      minP: minP!,
      repetitionPenalty: repetitionPenalty!,
      topK: topK!,
    }
    const seen = [...values(history).subarray(start!, start! + count!)]
    const bits = mask! > 0 ? (values(allowed!.rows(mask! - 1, 1)) as Int32Array) : null
    const drawn = sampleToken(values(logits.rows(row, 1)) as Float32Array, { ...params, allowed: bits }, seen, u!)
    values(tokens)[row] = drawn.token
    values(logprobs).set([drawn.logprob, drawn.plainLogprob], 2 * row)
  }
}

function optimizerOps(tf: Tf): Pick<Ops, 'sumSquares' | 'adamw'> {
  return {
    sumSquares: ({ out, x }) => accumulate(out, load(tf, x).square().sum().reshape([1])),
    adamw({ param, grad, m, v, learningRate, beta1, beta2, eps, weightDecay, gradScale, step }) {
      const g = load(tf, grad).mul(gradScale)
      const newM = load(tf, m)
        .mul(beta1)
        .add(g.mul(1 - beta1))
      const newV = load(tf, v)
        .mul(beta2)
        .add(g.square().mul(1 - beta2))
      const denominator = newV
        .sqrt()
        .div(Math.sqrt(1 - beta2 ** step))
        .add(eps)
      const decayed = load(tf, param).mul(1 - learningRate * weightDecay)
      store(param, decayed.sub(newM.div(denominator).mul(learningRate / (1 - beta1 ** step))))
      store(m, newM)
      store(v, newV)
    },
  }
}
