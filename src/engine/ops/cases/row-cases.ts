// Cases of fill, copy, gatherRows, embed, rmsNorm and swiglu.

import { floatsOf, intsOf, type OpCase, Random, stale } from './case'

export const rowCases: readonly OpCase[] = [
  {
    op: 'fill',
    name: 'fill',
    tensors: { target: stale([3, 5]) },
    outputs: ['target'],
    run: (ops, { target }) => ops.fill(target!, -2.25),
  },
  {
    op: 'copy',
    name: 'copy',
    tensors: { to: stale([7, 5]), from: new Random(1).normal([7, 5]) },
    outputs: ['to'],
    run: (ops, { to, from }) => ops.copy(to!, from!),
  },
  {
    op: 'gatherRows',
    name: 'gatherRows, rows repeat',
    tensors: { out: stale([6, 9]), from: new Random(2).normal([4, 9]), rows: intsOf([3, 0, 3, 1, 2, 3]) },
    outputs: ['out'],
    run: (ops, { out, from, rows }) => ops.gatherRows({ out: out!, from: from!, rows: rows! }),
  },
  ...[embed(1, 8), embed(6, 13), embed(5, 64)].flat(),
  ...[rmsNorm(1, 5), rmsNorm(7, 64), rmsNorm(3, 576), rmsNorm(9, 33), rmsNorm(3, 1536), rmsNorm(2, 3584)].flat(),
  ...[swiglu(1, 1), swiglu(5, 7), swiglu(3, 96), swiglu(2, 1536)].flat(),
  swigluExtremes(),
]

function embed(tokens: number, hidden: number): OpCase[] {
  const random = new Random(tokens)
  const ids = intsOf(Array.from({ length: tokens }, (_, i) => (i * 5) % 8)) // 8 rows: some repeat
  const table = random.weight([11, hidden])
  const tensors = { ids, dOut: random.normal([tokens, hidden]), dTable: random.normal([11, hidden]) }
  return [
    {
      op: 'embed',
      name: `embed ${tokens} of ${hidden}`,
      tensors: { out: stale([tokens, hidden]), table, ids },
      outputs: ['out'],
      run: (ops, { out, table, ids }) => ops.embed({ out: out!, table: table!, ids: ids! }),
      rowwise: ['out', 'ids'],
    },
    {
      op: 'embedBackward',
      name: `embedBackward ${tokens} of ${hidden}, added`,
      tensors,
      outputs: ['dTable'],
      run: (ops, { dTable, dOut, ids }) => ops.embedBackward({ dTable: dTable!, dOut: dOut!, ids: ids! }),
    },
  ]
}

function rmsNorm(tokens: number, hidden: number): OpCase[] {
  const random = new Random(tokens * hidden)
  const eps = 1e-5
  const x = random.normal([tokens, hidden])
  const weight = random.normal([hidden])
  const forward = { y: stale([tokens, hidden]), rstd: stale([tokens]), x, weight }
  const delta = random.normal([tokens, hidden])
  const size = `${tokens} × ${hidden}`
  const backward = { ...forward, dy: random.normal([tokens, hidden]), dx: stale([tokens, hidden]) }
  const rowwise = ['y', 'rstd', 'x']
  return [
    {
      op: 'rmsNorm',
      name: `rmsNorm ${size}`,
      tensors: forward,
      outputs: ['y', 'rstd'],
      run: (ops, { y, rstd, x, weight }) => ops.rmsNorm({ y: y!, rstd: rstd!, x: x!, weight: weight!, eps }),
      rowwise,
    },
    {
      op: 'rmsNorm',
      name: `rmsNorm ${size}, sum of x and delta kept`,
      tensors: { ...forward, delta, sum: stale([tokens, hidden]) },
      outputs: ['y', 'rstd', 'sum'],
      run: (ops, { y, rstd, x, weight, delta, sum }) =>
        ops.rmsNorm({ y: y!, rstd: rstd!, x: x!, weight: weight!, eps, delta: delta!, sum: sum! }),
      rowwise: [...rowwise, 'delta', 'sum'],
    },
    {
      op: 'rmsNorm',
      name: `rmsNorm ${size}, sum in place of x`,
      tensors: { ...forward, delta },
      outputs: ['y', 'rstd', 'x'],
      run: (ops, { y, rstd, x, weight, delta }) =>
        ops.rmsNorm({ y: y!, rstd: rstd!, x: x!, weight: weight!, eps, delta: delta!, sum: x! }),
    },
    {
      op: 'rmsNormBackward',
      name: `rmsNormBackward ${size}`,
      tensors: backward,
      outputs: ['y', 'rstd', 'dx'],
      run: (ops, { y, rstd, x, weight, dy, dx }) => {
        ops.rmsNorm({ y: y!, rstd: rstd!, x: x!, weight: weight!, eps })
        ops.rmsNormBackward({ dx: dx!, dy: dy!, x: x!, weight: weight!, rstd: rstd! })
      },
      derivative: { outputs: { y: 'dy' }, inputs: { x: 'dx' } },
    },
    {
      op: 'rmsNormBackward',
      name: `rmsNormBackward ${size}, residual in place, weight's gradient added`,
      tensors: { ...backward, dx: random.normal([tokens, hidden]), dWeight: random.normal([hidden]) },
      outputs: ['y', 'rstd', 'dx', 'dWeight'],
      run: (ops, { y, rstd, x, weight, dy, dx, dWeight }) => {
        ops.rmsNorm({ y: y!, rstd: rstd!, x: x!, weight: weight!, eps })
        const forward = { dy: dy!, x: x!, weight: weight!, rstd: rstd! }
        ops.rmsNormBackward({ dx: dx!, ...forward, dResidual: dx!, dWeight: dWeight! })
      },
      derivative: { outputs: { y: 'dy' }, inputs: { weight: 'dWeight' } },
    },
  ]
}

function swiglu(tokens: number, inner: number): OpCase[] {
  const random = new Random(inner)
  const tensors = { y: stale([tokens, inner]), gateUp: random.normal([tokens, 2 * inner], 2) }
  return [
    {
      op: 'swiglu',
      name: `swiglu ${tokens} × ${inner}`,
      tensors,
      outputs: ['y'],
      run: (ops, { y, gateUp }) => ops.swiglu({ y: y!, gateUp: gateUp! }),
      rowwise: ['y', 'gateUp'],
    },
    {
      op: 'swigluBackward',
      name: `swigluBackward ${tokens} × ${inner}`,
      tensors: { ...tensors, dy: random.normal([tokens, inner]), dGateUp: stale([tokens, 2 * inner]) },
      outputs: ['y', 'dGateUp'],
      run: (ops, { y, gateUp, dy, dGateUp }) => {
        ops.swiglu({ y: y!, gateUp: gateUp! })
        ops.swigluBackward({ dGateUp: dGateUp!, dy: dy!, gateUp: gateUp! })
      },
      derivative: { outputs: { y: 'dy' }, inputs: { gateUp: 'dGateUp' } },
    },
    {
      op: 'swigluBackward',
      name: `swigluBackward ${tokens} × ${inner}, y once more`,
      tensors: { ...tensors, dy: random.normal([tokens, inner]), dGateUp: stale([tokens, 2 * inner]) },
      outputs: ['y', 'dGateUp'],
      run: (ops, { y, gateUp, dy, dGateUp }) => ops.swigluBackward({ dGateUp: dGateUp!, dy: dy!, gateUp: gateUp!, y: y! }),
      rowwise: ['y', 'gateUp', 'dy', 'dGateUp'],
    },
    {
      op: 'swigluBackward',
      name: `swigluBackward ${tokens} × ${inner}, in the places of what it reads`,
      tensors: { ...tensors, dy: random.normal([tokens, inner]), dGateUp: stale([tokens, 2 * inner]) },
      outputs: ['y', 'dGateUp'],
      run: (ops, { y, gateUp, dy, dGateUp }) => {
        ops.copy(y!, dy!)
        ops.copy(dGateUp!, gateUp!)
        ops.swigluBackward({ dGateUp: dGateUp!, dy: y!, gateUp: dGateUp!, y: y! })
      },
      rowwise: ['y', 'gateUp', 'dy', 'dGateUp'],
    },
  ]
}

/** Gates so far from zero that a careless exp would be infinite. */
function swigluExtremes(): OpCase {
  const gates = [-200, -90, -30, 0, 30, 90, 200]
  return {
    op: 'swigluBackward',
    name: 'swigluBackward, gates far from zero',
    tensors: {
      y: stale([1, 7]),
      gateUp: floatsOf([...gates, 1, 2, -1, 3, -2, 1, 1], [1, 14]),
      dy: floatsOf([1, 1, 1, 1, 1, 1, 1], [1, 7]),
      dGateUp: stale([1, 14]),
    },
    outputs: ['y', 'dGateUp'],
    run: (ops, { y, gateUp, dy, dGateUp }) => {
      ops.swiglu({ y: y!, gateUp: gateUp! })
      ops.swigluBackward({ dGateUp: dGateUp!, dy: dy!, gateUp: gateUp! })
    },
  }
}
