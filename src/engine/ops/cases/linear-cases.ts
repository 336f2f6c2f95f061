// Cases of linear: odd sizes, bias, one to three members a weight, several adapters on ranges of rows with the base between them.

import type { LoraGradSlice, Ops } from '../ops'
import { type OpCase, Random, stale, type Tensors, type Values } from './case'

interface Adapter {
  readonly rowStart: number
  readonly rowCount: number
  readonly parts: readonly number[]
  readonly rank: number
}

interface Shape {
  readonly tokens: number
  readonly in: number
  readonly out: number
  readonly bias?: true
  readonly adapters?: readonly Adapter[]
}

const SHAPES: readonly Shape[] = [
  { tokens: 1, in: 1, out: 1 },
  { tokens: 1, in: 64, out: 96, bias: true },
  { tokens: 7, in: 13, out: 9, bias: true },
  { tokens: 67, in: 64, out: 48 },
  { tokens: 33, in: 1096, out: 40, bias: true, adapters: [{ rowStart: 0, rowCount: 33, parts: [24, 16], rank: 8 }] },
  { tokens: 1, in: 33, out: 16, adapters: [{ rowStart: 0, rowCount: 1, parts: [16], rank: 1 }] },
  { tokens: 19, in: 24, out: 16, bias: true, adapters: [{ rowStart: 0, rowCount: 19, parts: [8, 4, 4], rank: 3 }] },
  { tokens: 40, in: 64, out: 96, adapters: [{ rowStart: 0, rowCount: 40, parts: [48, 48], rank: 16 }] },
  {
    tokens: 12,
    in: 17,
    out: 10,
    adapters: [
      { rowStart: 1, rowCount: 4, parts: [4, 6], rank: 2 },
      { rowStart: 5, rowCount: 1, parts: [4, 6], rank: 5 },
      { rowStart: 8, rowCount: 3, parts: [4, 6], rank: 2 },
    ],
  },
  // More rows and columns than the CUDA kernels' tiles have, and ends of both within a tile.
  { tokens: 171, in: 136, out: 344, adapters: [{ rowStart: 0, rowCount: 171, parts: [264, 72, 8], rank: 16 }] },
  {
    tokens: 150,
    in: 264,
    out: 80,
    bias: true,
    adapters: [
      { rowStart: 0, rowCount: 5, parts: [40, 40], rank: 8 },
      { rowStart: 7, rowCount: 140, parts: [40, 40], rank: 32 },
      { rowStart: 147, rowCount: 1, parts: [40, 40], rank: 16 },
      { rowStart: 149, rowCount: 1, parts: [40, 40], rank: 24 },
    ],
  },
  { tokens: 35, in: 40, out: 64, adapters: [{ rowStart: 2, rowCount: 33, parts: [32, 16, 16], rank: 32 }] },
  // Pieces of k that are longer than the least.
  { tokens: 70, in: 3080, out: 16, adapters: [{ rowStart: 0, rowCount: 70, parts: [8, 8], rank: 8 }] },
  // Ranks that go other ways than most, among others.
  {
    tokens: 90,
    in: 72,
    out: 96,
    bias: true,
    adapters: [
      { rowStart: 0, rowCount: 20, parts: [48, 48], rank: 8 },
      { rowStart: 20, rowCount: 15, parts: [48, 48], rank: 12 },
      { rowStart: 40, rowCount: 25, parts: [48, 48], rank: 40 },
      { rowStart: 65, rowCount: 25, parts: [48, 48], rank: 72 },
    ],
  },
]

export const linearCases: readonly OpCase[] = SHAPES.flatMap((shape, i) => [
  forward(shape, i),
  forward(shape, i, true),
  backward(shape, i, true),
  backward(shape, i, false),
  dxAlone(shape, i),
  ...(wholeBatch(shape) ? [rowGradients(shape, i)] : []),
])

function wholeBatch({ tokens, adapters }: Shape): boolean {
  return (adapters ?? []).every(({ rowCount }) => rowCount === tokens)
}

function forward(shape: Shape, seed: number, decode = false): OpCase {
  return {
    op: 'linear',
    name: `linear ${describe(shape)}${decode ? ', decode' : ''}`,
    tensors: forwardTensors(shape, new Random(seed)),
    outputs: ['y', ...names(shape, ['xa'])],
    run: (ops, t) => runForward(shape, ops, t, decode),
    ...(wholeBatch(shape) && { rowwise: ['y', 'x', ...names(shape, ['xa'])] }),
  }
}

function backward(shape: Shape, seed: number, full: boolean): OpCase {
  const random = new Random(seed)
  const { tokens } = shape
  const tensors: Record<string, Values> = { ...forwardTensors(shape, random), dy: random.normal([tokens, shape.out]) }
  for (const [i, { parts, rank }] of (shape.adapters ?? []).entries()) {
    tensors[`da${i}`] = random.normal([parts.length * rank, shape.in])
    tensors[`db${i}`] = random.normal([shape.out, rank])
  }
  if (full) {
    tensors['dx'] = stale([tokens, shape.in])
    tensors['dWeight'] = random.normal([shape.out, shape.in])
    tensors['dBias'] = random.normal([shape.out])
  }
  const inputs: Record<string, string> = full ? { x: 'dx', weight: 'dWeight', ...(shape.bias && { bias: 'dBias' }) } : {}
  for (const i of (shape.adapters ?? []).keys()) Object.assign(inputs, { [`a${i}`]: `da${i}`, [`b${i}`]: `db${i}` })
  return {
    op: 'linearBackward',
    name: `linearBackward ${describe(shape)}${full ? '' : ', adapters only'}`,
    tensors,
    outputs: ['y', ...names(shape, ['xa', 'da', 'db']), ...(full ? ['dx', 'dWeight', 'dBias'] : [])],
    run: (ops, t) => {
      runForward(shape, ops, t)
      const all = full && { dx: t['dx']!, dWeight: t['dWeight']!, dBias: t['dBias']! }
      ops.linearBackward({ dy: t['dy']!, x: t['x']!, weight: t['weight']!, loras: slices(shape, t), ...all })
    },
    derivative: { outputs: { y: 'dy' }, inputs },
  }
}

/** Without x: da and db stay as they are. */
function dxAlone(shape: Shape, seed: number): OpCase {
  const { derivative: _, ...full } = backward(shape, seed, true)
  return {
    ...full,
    name: `linearBackward ${describe(shape)}, dx alone`,
    outputs: ['y', 'dx', ...names(shape, ['xa'])],
    run: (ops, t) => {
      runForward(shape, ops, t)
      ops.linearBackward({ dy: t['dy']!, weight: t['weight']!, loras: slices(shape, t), dx: t['dx']! })
    },
  }
}

/** dx alone: a row's must not depend on the others. Gradients of adapters are sums over rows. */
function rowGradients(shape: Shape, seed: number): OpCase {
  const { derivative: _, ...full } = backward(shape, seed, true)
  return {
    ...full,
    name: `${full.name}, rows alone`,
    outputs: ['y', 'dx', ...names(shape, ['xa'])],
    scratch: names(shape, ['da', 'db']),
    rowwise: ['y', 'x', 'dy', 'dx', ...names(shape, ['xa'])],
    run: (ops, t) => {
      runForward(shape, ops, t)
      ops.linearBackward({ dy: t['dy']!, x: t['x']!, weight: t['weight']!, loras: slices(shape, t), dx: t['dx']! })
    },
  }
}

function runForward(shape: Shape, ops: Ops, t: Tensors, decode = false): void {
  const bias = shape.bias && { bias: t['bias']! }
  ops.linear({ y: t['y']!, x: t['x']!, weight: t['weight']!, loras: slices(shape, t), ...bias, decode })
}

function forwardTensors(shape: Shape, random: Random): Record<string, Values> {
  const tensors: Record<string, Values> = {
    x: random.normal([shape.tokens, shape.in]),
    weight: random.weight([shape.out, shape.in]),
    y: stale([shape.tokens, shape.out]),
  }
  if (shape.bias) tensors['bias'] = random.normal([shape.out])
  for (const [i, { rowCount, parts, rank }] of (shape.adapters ?? []).entries()) {
    tensors[`a${i}`] = random.normal([parts.length * rank, shape.in], 1 / Math.sqrt(shape.in))
    tensors[`b${i}`] = random.normal([shape.out, rank])
    tensors[`xa${i}`] = stale([rowCount, parts.length * rank])
  }
  return tensors
}

/** Row counts come from the tensors, so that a case can be cut by rows. */
function slices(shape: Shape, t: Tensors): LoraGradSlice[] {
  return (shape.adapters ?? []).map(({ rowStart, parts, rank }, i) => {
    const tensors = { a: t[`a${i}`]!, b: t[`b${i}`]!, xa: t[`xa${i}`]!, da: t[`da${i}`]!, db: t[`db${i}`]! }
    return { rowStart, rowCount: tensors.xa.shape[0]!, parts, rank, scale: 1.5 + i, ...tensors }
  })
}

function names(shape: Shape, kinds: readonly string[]): string[] {
  return (shape.adapters ?? []).flatMap((_, i) => kinds.map((kind) => `${kind}${i}`))
}

function describe({ tokens, in: inputs, out, bias, adapters }: Shape): string {
  const on = (adapters ?? []).map(
    ({ rowStart, rowCount, parts, rank }) => `${rowCount}@${rowStart} rank ${rank} of ${parts.length}`,
  )
  return `${tokens} × ${inputs} → ${out}${bias ? ' + bias' : ''}${on.length ? `, adapters ${on.join(', ')}` : ''}`
}
