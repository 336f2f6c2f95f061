// Cases of attention and of ropeStoreKv: causal runs, prefix trees, prefill over a cached prefix, decode over scattered slots.

import { buildPacks } from '../../prefix-tree'
import type { AttentionPlan } from '../ops'
import { count, intsOf, type OpCase, Random, stale, type Tensors, type Values } from './case'

interface Heads {
  readonly heads: number
  readonly kvHeads: number
  readonly headDim: number
}

interface Plan {
  readonly name: string
  readonly tokens: number
  readonly slots: number
  readonly segments: readonly (readonly [rowStart: number, rowCount: number, contextStart: number, contextLength: number])[]
  readonly context: readonly number[]
}

const HEADS: readonly Heads[] = [
  { heads: 4, kvHeads: 2, headDim: 16 },
  { heads: 9, kvHeads: 3, headDim: 64 },
  { heads: 3, kvHeads: 3, headDim: 6 },
]

const PLANS: readonly Plan[] = [causal(1), causal(9), causal(150), tree(), continued(), decode()]

export const attentionCases: readonly OpCase[] = [
  ...HEADS.flatMap((heads, i) => PLANS.flatMap((plan, j) => [forward(plan, heads, i + j), backward(plan, heads, i + j)])),
  ...HEADS.flatMap((heads) => [rope(1, heads), rope(7, heads)]).flat(),
]

/** One run of rows that sees itself. */
export function causal(tokens: number): Plan {
  const context = Array.from({ length: tokens }, (_, i) => i)
  return { name: `${tokens} causal rows`, tokens, slots: tokens, segments: [[0, tokens, 0, tokens]], context }
}

/** A pack as the trainer makes it. */
export function tree(): Plan {
  const [one, two] = [
    [5, 6, 7, 8, 9],
    [5, 6, 7, 3],
  ]
  const sequences = [
    { prompt: one!, completion: [1, 2, 3, 4] },
    { prompt: one!, completion: [1, 2, 9] },
    { prompt: one!, completion: [2, 2] },
    { prompt: two!, completion: [1, 1, 1, 1, 1, 1] },
    { prompt: two!, completion: [1, 1, 2, 1, 1] },
    { prompt: [8, 1], completion: [4, 4] },
  ]
  const pack = buildPacks(sequences, 1000).trees[0]!.packs[0]!
  const segments = Array.from({ length: pack.segments.length / 4 }, (_, s) => {
    const [rowStart, rowCount, contextStart, contextLength] = pack.segments.subarray(4 * s, 4 * s + 4)
    return [rowStart!, rowCount!, contextStart!, contextLength!] as const
  })
  return { name: 'prefix tree', tokens: pack.tokens, slots: pack.tokens, segments, context: [...pack.context] }
}

/** Two prompts go on after prefixes that lie somewhere in the cache. */
function continued(): Plan {
  const slots = [...new Random(3).distinct(22, 40)]
  const segments = [[0, 4, 0, 13] as const, [4, 2, 13, 9] as const]
  return { name: 'two runs over cached prefixes', tokens: 6, slots: 40, segments, context: slots }
}

/** One new row for each of five sequences of different length, one of them its first. */
function decode(): Plan {
  const random = new Random(4)
  const lengths = [3, 1, 17, 130, 64]
  const all = [...random.distinct(215, 230)]
  let start = 0
  const segments = lengths.map((length, row) => {
    const segment = [row, 1, start, length] as const
    start += length
    return segment
  })
  return { name: 'decode of five rows', tokens: 5, slots: 230, segments, context: all }
}

/** The plan's arrays, with room to spare after the segments that count. */
export function planValues(plan: Plan): { segments: Values; context: Values } {
  const segments = [...plan.segments.flat(), 0, 1, 0, 1]
  return { segments: intsOf(segments, [plan.segments.length + 1, 4]), context: intsOf([...plan.context, 0, 0]) }
}

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

function runForward(plan: Plan, heads: Heads): OpCase['run'] {
  return (ops, t) => {
    const tensors = { out: t['out']!, q: t['q']!, k: t['k']!, v: t['v']!, lse: t['lse']! }
    ops.attention({ ...tensors, plan: planOf(plan, t), ...heads })
  }
}

function forward(plan: Plan, heads: Heads, seed: number): OpCase {
  return {
    op: 'attention',
    name: `attention ${plan.name}, heads ${heads.heads}/${heads.kvHeads} of ${heads.headDim}`,
    tensors: forwardTensors(plan, heads, new Random(seed)),
    outputs: ['out', 'lse'],
    run: runForward(plan, heads),
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
