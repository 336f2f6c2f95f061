// Cases of logprob, sample, sumSquares and adamw.

import type { SamplingParams } from '../../engine'
import { addToken, emptyMask, type TokenMask } from '../../sampling'
import { floatsOf, intsOf, type OpCase, Random, stale, type Tensors, type Values } from './case'

const PLAIN: SamplingParams = { temperature: 1, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1 }
const SAMPLING: readonly Partial<SamplingParams>[] = [
  {},
  { temperature: 0 },
  { temperature: 0.3 },
  { temperature: 1.7, topK: 5 },
  { topP: 0.6 },
  { topP: 0.01 },
  { minP: 0.2 },
  { repetitionPenalty: 1.4 },
  { temperature: 0, repetitionPenalty: 3 },
  { temperature: 0.8, topK: 20, topP: 0.9, minP: 0.02, repetitionPenalty: 1.1 },
  { topK: 1000 },
]

export const headCases: readonly OpCase[] = [
  ...logprob({ tokens: 1, hidden: 8, vocab: 11, pairs: 1, temperature: 1 }),
  ...logprob({ tokens: 5, hidden: 13, vocab: 257, pairs: 9, temperature: 0.7 }),
  ...logprob({ tokens: 30, hidden: 64, vocab: 100, pairs: 70, temperature: 1.3 }),
  ...logprob({ tokens: 2, hidden: 4, vocab: 60_004, pairs: 2, temperature: 1 }), // more than a multiprocessor holds
  ...logprob({ tokens: 4, hidden: 32, vocab: 2000, pairs: 3, temperature: 0.05 }), // sharp: logits far apart
  ...sampling(),
  ...[1, 999].map(sumSquares),
  ...[adamw(1, 1), adamw(7, 777)],
]

interface LogprobShape {
  readonly tokens: number
  readonly hidden: number
  readonly vocab: number
  readonly pairs: number
  readonly temperature: number
}

function logprob({ tokens, hidden, vocab, pairs, temperature }: LogprobShape): OpCase[] {
  const random = new Random(vocab)
  const forward = {
    logprobs: stale([pairs]),
    entropies: stale([pairs]),
    lse: stale([pairs]),
    hidden: random.normal([tokens, hidden]),
    rows: random.ints([pairs], Math.max(1, tokens - 1)), // repeats, and a row that no pair reads
    targets: random.ints([pairs], vocab),
    head: random.weight([vocab, hidden]),
  }
  const saved = (t: Tensors) => ({
    ...{ logprobs: t['logprobs']!, entropies: t['entropies']!, lse: t['lse']!, hidden: t['hidden']! },
    ...{ rows: t['rows']!, targets: t['targets']!, head: t['head']!, temperature },
  })
  const backward = { ...forward, dLogprobs: random.normal([pairs]), dHidden: stale([tokens, hidden]) }
  const kept = { ...backward, logits: stale([pairs, vocab]) }
  const withEntropy = { ...backward, dEntropies: random.normal([pairs]), dHead: random.normal([vocab, hidden]) }
  const name = `${pairs} pairs of ${tokens} rows, vocab ${vocab}, T ${temperature}`
  const outputs = ['logprobs', 'entropies', 'lse']
  const enlarges = Math.max(1, 1 / temperature)
  return [
    {
      op: 'logprob',
      name: `logprob ${name}`,
      enlarges,
      tensors: forward,
      outputs,
      run: (ops, t) => ops.logprob(saved(t)),
      rowwise: ['rows', 'targets', ...outputs],
    },
    {
      op: 'logprobBackward',
      name: `logprobBackward ${name}`,
      enlarges,
      tensors: backward,
      outputs: [...outputs, 'dHidden'],
      run: (ops, t) => {
        ops.logprob(saved(t))
        ops.logprobBackward({ dHidden: t['dHidden']!, dLogprobs: t['dLogprobs']!, ...saved(t) })
      },
      ...(temperature > 0.1 && { derivative: { outputs: { logprobs: 'dLogprobs' }, inputs: { hidden: 'dHidden' } } }),
    },
    {
      op: 'logprobBackward',
      name: `logprobBackward ${name}, of logits that were kept`,
      enlarges,
      tensors: kept,
      outputs: [...outputs, 'dHidden'],
      scratch: ['logits'],
      run: (ops, t) => {
        const logits = t['logits']!
        ops.logprob({ ...saved(t), logits })
        ops.logprobBackward({ dHidden: t['dHidden']!, dLogprobs: t['dLogprobs']!, ...saved(t), logits })
      },
    },
    {
      op: 'logprobBackward',
      name: `logprobBackward ${name}, both ways in one, logits kept`,
      enlarges,
      tensors: kept,
      outputs: [...outputs, 'dHidden'],
      scratch: ['logits'],
      run: (ops, t) => {
        const given = { dHidden: t['dHidden']!, dLogprobs: t['dLogprobs']!, logits: t['logits']! }
        ops.logprobBackward({ ...given, ...saved(t), forward: true })
      },
    },
    {
      op: 'logprobBackward',
      name: `logprobBackward ${name}, both ways in one, with the head's gradient`,
      enlarges,
      tensors: withEntropy,
      outputs: [...outputs, 'dHidden', 'dHead'],
      run: (ops, t) => {
        const gradients = { dHidden: t['dHidden']!, dLogprobs: t['dLogprobs']!, dHead: t['dHead']! }
        ops.logprobBackward({ ...gradients, ...saved(t), forward: true })
      },
    },
    {
      op: 'logprobBackward',
      name: `logprobBackward ${name}, with entropies and the head's gradient`,
      enlarges,
      tensors: withEntropy,
      outputs: [...outputs, 'dHidden', 'dHead'],
      run: (ops, t) => {
        ops.logprob(saved(t))
        const gradients = { dHidden: t['dHidden']!, dLogprobs: t['dLogprobs']!, dEntropies: t['dEntropies']!, dHead: t['dHead']! }
        ops.logprobBackward({ ...gradients, ...saved(t) })
      },
      ...(temperature > 0.1 && {
        derivative: {
          outputs: { logprobs: 'dLogprobs', entropies: 'dEntropies' },
          inputs: { hidden: 'dHidden', head: 'dHead' },
        },
      }),
    },
  ]
}

/** Every kind of truncation at several random numbers, in one call; one vocabulary of equal logits, for the ties. Every other time under a mask. */
function sampling(): OpCase[] {
  const us = [0, 0.31, 0.77, 1 - 2 ** -24]
  const params = SAMPLING.flatMap((one) => [0, 1, 2].flatMap((mask) => us.map((u) => ({ ...PLAIN, ...one, u, mask }))))
  const history = [1, 4, 9, 16, 25, 36, 2, 3]
  const ints = (rows: number) =>
    intsOf(Array.from({ length: rows }, (_, i) => [params[i]!.topK, i % 3, i % 6, params[i]!.mask]).flat(), [rows, 4])
  const one = (vocab: number, logits: (random: Random, shape: readonly number[]) => Values): OpCase => {
    const rows = params.length
    const floats = params.flatMap((p) => [p.temperature, p.topP, p.minP, p.repetitionPenalty, p.u, 0])
    return {
      op: 'sample',
      name: `sample ${rows} rows of ${vocab}`,
      tensors: {
        logits: logits(new Random(vocab), [rows, vocab]),
        floats: floatsOf(floats, [rows, 6]),
        ints: { ...ints(rows) },
        history: intsOf(history),
        allowed: intsOf([...everyThird(vocab), ...onlyThe(Math.min(vocab - 1, 40), vocab)], [2, emptyMask(vocab).length]),
        tokens: intsOf(new Int32Array(rows)),
        logprobs: stale([rows, 2]),
      },
      outputs: ['tokens', 'logprobs'],
      scratch: ['logits'],
      run: (ops, t) => {
        const given = { logits: t['logits']!, floats: t['floats']!, ints: t['ints']!, history: t['history']! }
        ops.sample({ ...given, allowed: t['allowed']!, tokens: t['tokens']!, logprobs: t['logprobs']! })
      },
      rowwise: ['logits', 'floats', 'ints', 'tokens', 'logprobs'],
    }
  }
  const equal = (_: Random, shape: readonly number[]) => floatsOf(new Float32Array(shape[0]! * shape[1]!).fill(0.5), shape)
  return [
    one(50, (random, shape) => random.normal(shape, 3)),
    one(1003, (random, shape) => random.normal(shape, 3)),
    one(2051, (random, shape) => random.normal(shape, 3)),
    one(4100, (random, shape) => random.normal(shape, 4)),
    one(37, equal),
  ]
}

function everyThird(vocab: number): TokenMask {
  const mask = emptyMask(vocab)
  for (let token = 1; token < vocab; token += 3) addToken(mask, token)
  return mask
}

function onlyThe(token: number, vocab: number): TokenMask {
  const mask = emptyMask(vocab)
  addToken(mask, token)
  return mask
}

function sumSquares(size: number): OpCase {
  return {
    op: 'sumSquares',
    name: `sumSquares of ${size}, added`,
    tensors: { out: floatsOf([3.5]), x: new Random(size).normal([size]) },
    outputs: ['out'],
    run: (ops, { out, x }) => ops.sumSquares({ out: out!, x: x! }),
  }
}

function adamw(step: number, size: number): OpCase {
  const random = new Random(step)
  const v = random.normal([size])
  return {
    op: 'adamw',
    name: `adamw of ${size}, step ${step}`,
    tensors: {
      param: random.normal([size]),
      grad: random.normal([size]),
      m: random.normal([size]),
      v: { shape: v.shape, data: v.data.map((value) => value * value) },
    },
    outputs: ['param', 'm', 'v'],
    run: (ops, { param, grad, m, v }) => {
      const rates = { learningRate: 1e-2, beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0.1, gradScale: 0.3, step }
      ops.adamw({ param: param!, grad: grad!, m: m!, v: v!, ...rates })
    },
  }
}
