// Cases of attention and of ropeStoreKv: causal runs, prefix trees, prefill over a cached prefix, decode over scattered slots.

import type { AttentionPlan } from '../ops'
import {
  branches,
  causal,
  continued,
  crowd,
  decode,
  distant,
  distantRun,
  type Heads,
  type Plan,
  planValues,
  shared,
  tree,
  trunk,
} from './attention-plans'
import { count, intsOf, type OpCase, Random, stale, type Tensors, type Values } from './case'

const HEADS: readonly Heads[] = [
  { heads: 4, kvHeads: 2, headDim: 16 },
  { heads: 9, kvHeads: 3, headDim: 64 },
  { heads: 3, kvHeads: 3, headDim: 6 },
]

const PLANS: readonly Plan[] = [causal(1), causal(9), causal(150), tree(), continued(), decode()]

/** Widths that devices have ways of their own for, groups of 6, of 2 and of more heads than a tile's 16 rows. */
const DECODE_HEADS: readonly Heads[] = [
  ...HEADS,
  { heads: 12, kvHeads: 2, headDim: 128 },
  { heads: 4, kvHeads: 2, headDim: 32 },
  { heads: 20, kvHeads: 1, headDim: 32 },
]
const DECODE_PLANS: readonly Plan[] = [decode(1), decode(), shared(), distant(), distantRun(), tree()]

export const attentionCases: readonly OpCase[] = [
  ...HEADS.flatMap((heads, i) => PLANS.flatMap((plan, j) => [forward(plan, heads, i + j), backward(plan, heads, i + j)])),
  ...[HEADS[1]!, { heads: 12, kvHeads: 2, headDim: 128 }].map((heads, i) => backward(branches(), heads, i)),
  ...[HEADS[1]!, { heads: 3, kvHeads: 1, headDim: 128 }].map((heads, i) => backward(trunk(), heads, i)),
  ...[HEADS[1]!, { heads: 4, kvHeads: 4, headDim: 32 }].map((heads, i) => forward(crowd(), heads, i, true)),
  ...DECODE_HEADS.flatMap((heads, i) => DECODE_PLANS.map((plan, j) => forward(plan, heads, i + j, true))),
  ...HEADS.flatMap((heads) => [rope(1, heads), rope(7, heads)]).flat(),
]

function planOf(plan: Plan, t: Tensors): AttentionPlan {
  return { segments: t['segments']!, context: t['context']!, segmentCount: plan.segments.length }
}

function forwardTensors(plan: Plan, { heads, kvHeads, headDim }: Heads, random: Random): Record<string, Values> {
  return {
    out: stale([plan.tokens, heads * headDim]),
    lse: stale([plan.tokens, heads]),
    q: random.normal([plan.tokens, heads * headDim]),
    k: random.normal([plan.slots, kvHeads * headDim]),
    v: random.normal([plan.slots, kvHeads * headDim]),
    ...planValues(plan),
  }
}

function runForward(plan: Plan, heads: Heads, decode = false): OpCase['run'] {
  return (ops, t) => {
    const tensors = { out: t['out']!, q: t['q']!, k: t['k']!, v: t['v']!, lse: t['lse']! }
    ops.attention({ ...tensors, plan: planOf(plan, t), ...heads, decode })
  }
}

function forward(plan: Plan, heads: Heads, seed: number, decode = false): OpCase {
  return {
    op: 'attention',
    name: `attention ${plan.name}, heads ${heads.heads}/${heads.kvHeads} of ${heads.headDim}${decode ? ', decode' : ''}`,
    tensors: forwardTensors(plan, heads, new Random(seed)),
    outputs: ['out', 'lse'],
    run: runForward(plan, heads, decode),
  }
}

function backward(plan: Plan, heads: Heads, seed: number): OpCase {
  const random = new Random(seed)
  const tensors = forwardTensors(plan, heads, random)
  const like = (name: string) => tensors[name]!.shape
  return {
    op: 'attentionBackward',
    name: `attentionBackward ${plan.name}, heads ${heads.heads}/${heads.kvHeads} of ${heads.headDim}`,
    tensors: { ...tensors, dOut: random.normal(like('out')), dq: stale(like('q')), dk: stale(like('k')), dv: stale(like('v')) },
    outputs: ['out', 'lse', 'dq', 'dk', 'dv'],
    run: (ops, t) => {
      runForward(plan, heads)(ops, t)
      const saved = { out: t['out']!, lse: t['lse']!, q: t['q']!, k: t['k']!, v: t['v']!, plan: planOf(plan, t), ...heads }
      ops.attentionBackward({ dq: t['dq']!, dk: t['dk']!, dv: t['dv']!, dOut: t['dOut']!, ...saved })
    },
    // Finite differences run a case seven times: the largest are left to the comparison alone.
    ...(plan.context.length * count(like('q')) < 2e6 && {
      derivative: { outputs: { out: 'dOut' }, inputs: { q: 'dq', k: 'dk', v: 'dv' } },
    }),
  }
}

function rope(tokens: number, { heads, kvHeads, headDim }: Heads): OpCase[] {
  const random = new Random(tokens + headDim)
  const slotCount = tokens + 6
  const width = (heads + 2 * kvHeads) * headDim
  const angles = Array.from({ length: 20 }, () => Array.from({ length: headDim / 2 }, () => random.uniform() * 6))
  const table = angles.flatMap((row) => [...row.map(Math.cos), ...row.map(Math.sin)])
  const places = {
    positions: random.ints([tokens], 20),
    slots: intsOf(random.distinct(tokens, slotCount)),
    rope: { shape: [20, headDim], data: Float32Array.from(table) },
  }
  const ofPlaces = (t: Tensors) => ({ positions: t['positions']!, slots: t['slots']!, rope: t['rope']!, heads, kvHeads, headDim })
  const kv = () => random.normal([slotCount, kvHeads * headDim])
  const name = `${tokens} rows, heads ${heads}/${kvHeads} of ${headDim}`
  return [
    {
      op: 'ropeStoreKv',
      name: `ropeStoreKv ${name}`,
      tensors: { qkv: random.normal([tokens, width]), q: stale([tokens, heads * headDim]), k: kv(), v: kv(), ...places },
      outputs: ['q', 'k', 'v'],
      run: (ops, t) => ops.ropeStoreKv({ qkv: t['qkv']!, q: t['q']!, k: t['k']!, v: t['v']!, ...ofPlaces(t) }),
    },
    {
      op: 'ropeStoreKvBackward',
      name: `ropeStoreKvBackward ${name}`,
      tensors: { dqkv: stale([tokens, width]), dq: random.normal([tokens, heads * headDim]), dk: kv(), dv: kv(), ...places },
      outputs: ['dqkv'],
      run: (ops, t) => ops.ropeStoreKvBackward({ dqkv: t['dqkv']!, dq: t['dq']!, dk: t['dk']!, dv: t['dv']!, ...ofPlaces(t) }),
    },
    {
      op: 'ropeStoreKvBackward',
      name: `ropeStoreKvBackward of ropeStoreKv ${name}`,
      tensors: {
        qkv: random.normal([tokens, width]),
        q: stale([tokens, heads * headDim]),
        k: kv(),
        v: kv(),
        dqkv: stale([tokens, width]),
        dq: random.normal([tokens, heads * headDim]),
        dk: kv(),
        dv: kv(),
        ...places,
      },
      outputs: ['q', 'k', 'v', 'dqkv'],
      run: (ops, t) => {
        ops.ropeStoreKv({ qkv: t['qkv']!, q: t['q']!, k: t['k']!, v: t['v']!, ...ofPlaces(t) })
        ops.ropeStoreKvBackward({ dqkv: t['dqkv']!, dq: t['dq']!, dk: t['dk']!, dv: t['dv']!, ...ofPlaces(t) })
      },
      derivative: { outputs: { q: 'dq', k: 'dk', v: 'dv' }, inputs: { qkv: 'dqkv' } },
    },
  ]
}
