// Declares the tests of a backend: every case against TensorFlow.js, its gradients against finite differences, guard words around
// all tensors, the invariance of rows, captures. `describeOps('native', openNative)` is a whole test file.

import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { count, type OpCase, Random, stale, type Values } from './cases/case'
import { checkDecoding, checkDivision, checkSamePlan } from './check-attention'
import type { Backend, DType, Ops, Tensor, TypedArray } from './ops'
import { opCases } from './ops.case'
import { toBf16 } from './tensors.fixture'
import { openTfjs } from './tfjs'

/** An emulated GPU whose every access is watched for races takes its time. */
const LIMIT_MS = process.env['ARBOR_EMULATOR_WATCH'] ? 900_000 : 60_000

export interface DescribeOpsOptions {
  /** Ops left out, each with its reason; shown as skipped. */
  readonly skip?: Partial<Readonly<Record<keyof Ops, string>>>
  /** Whether a row's result must not depend on the others. Default true. */
  readonly invariant?: boolean
  /**
   * Least limit of the difference from tfjs, relative to the largest value, where weights are rounded (bf16). Finite differences are then left out:
   * a step of the size that they need moves some operands by a rounding and others not at all.
   */
  readonly rounded?: number
  /** The activations' type. With bf16 every case runs rounded, not only those that read a weight. */
  readonly activations?: 'bf16'
  /** Rows that decode have an attention kernel of their own, with bits of its own. */
  readonly decodesApart?: true
}

/** Tensors of the cases that are activations; all others stay f32 on every device. */
const ACTIVATIONS = new Set(
  'y x dy dx delta sum out q k v dOut dq qkv dqkv hidden dHidden gateUp dGateUp from to target'.split(' '),
)

function isActivation(one: OpCase, name: string): boolean {
  return ACTIVATIONS.has(name) && one.op !== 'sumSquares' && one.op !== 'adamw'
}

type Downloaded = Readonly<Record<string, Float32Array | Int32Array>>

export function describeOps(name: string, open: () => Promise<Backend>, options: DescribeOpsOptions = {}): void {
  describe(`${name}: ops`, () => {
    let backend: Backend
    let judge: Backend
    beforeAll(async () => {
      backend = await open()
      judge = backend.device === 'tfjs' ? backend : await openTfjs()
    }, 600_000) // a native library may have to be built first
    afterAll(() => {
      backend?.close()
      if (judge !== backend) judge.close()
    })
    // Where weights are rounded, what reads none is the same code as where they aren't.
    const cases = options.rounded === undefined || options.activations ? opCases : opCases.filter(hasPreparedWeight)
    for (const one of cases) {
      const reason = options.skip?.[one.op]
      const declare = reason === undefined ? it : it.skip
      const label = reason === undefined ? one.name : `${one.name} (${reason})`
      declare(label, { timeout: LIMIT_MS }, async () => {
        const actual = await runCase(backend, one)
        if (judge !== backend)
          compare(actual, await runCase(judge, one), {
            ...one,
            limit: Math.max(one.limit ?? LIMIT, (options.rounded ?? 0) * (one.enlarges ?? 1)),
          })
        if (one.derivative && options.rounded === undefined) await checkDerivative(backend, one, actual)
        if (one.rowwise && options.invariant !== false) await checkRowsAlone(backend, one, actual)
      })
    }
    if (options.invariant !== false) {
      it('attention of a row has the same bits in a prefill, in a prefix tree and in a segment of its own', () =>
        checkDivision(backend, options.decodesApart ?? false))
      it('attention of a row that decodes has the same bits alone and among others', () => checkDecoding(backend))
    }
    it('attention and its gradient are the same where the plan is said to be that of the call before', () =>
      checkSamePlan(backend))
    it('a capture runs nothing when recorded, and replays on new inputs', () => checkCapture(backend))
  })
}

/** Runs a case with guard rows around every tensor; returns all tensors. Throws when anything but outputs changed. */
async function runCase(backend: Backend, one: OpCase): Promise<Downloaded> {
  const arena = backend.arena(1 << 16)
  try {
    const dtypeOf = (name: string, { data }: Values) =>
      data instanceof Int32Array ? 'i32' : isActivation(one, name) ? backend.activations : 'f32'
    const guarded = Object.entries(one.tensors).map(
      ([name, values]) => [name, values, guard(backend, values, dtypeOf(name, values))] as const,
    )
    one.run(backend.ops, Object.fromEntries(guarded.map(([name, , { view }]) => [name, view])))
    const out: Record<string, Float32Array | Int32Array> = {}
    for (const [name, values, { whole }] of guarded) {
      if (!whole) continue // prepared: its layout is the backend's own
      const data = asFloats(await backend.download(whole))
      const row = data.length / whole.shape[0]!
      const guards = [...data.subarray(0, row), ...data.subarray(data.length - row)]
      expect(new Set(guards), `guard words around ${name}`).toEqual(new Set([GUARD]))
      out[name] = data.subarray(row, data.length - row)
      const free = one.outputs.includes(name) || one.scratch?.includes(name)
      const given = whole.dtype === 'bf16' ? asFloats(toBf16(values.data as Float32Array)) : values.data
      if (!free) expectSame(out[name]!, given, `${name} is an input`)
    }
    return out
  } finally {
    arena.close()
  }

  function guard(on: Backend, values: Values, dtype: DType): { view: Tensor; whole: Tensor | null } {
    const { shape, data, prepared } = values
    if (prepared) {
      const use = { adapted: 'a0' in one.tensors }
      return { view: on.prepareWeight([shape[0]!, shape[1]!], Float32Array.from(data), use), whole: null }
    }
    const row = count(shape.slice(1))
    const padded = data instanceof Int32Array ? new Int32Array(data.length + 2 * row) : new Float32Array(data.length + 2 * row)
    padded.fill(GUARD)
    padded.set(data, row)
    const whole = arena.tensor([shape[0]! + 2, ...shape.slice(1)], dtype)
    on.upload(whole, dtype === 'bf16' ? toBf16(padded as Float32Array) : padded)
    return { view: whole.rows(1, shape[0]!), whole }
  }
}

function asFloats(data: TypedArray): Float32Array | Int32Array {
  return data instanceof Uint16Array ? new Float32Array(Uint32Array.from(data, (half) => half << 16).buffer) : data
}

function hasPreparedWeight({ tensors }: OpCase): boolean {
  return Object.values(tensors).some(({ prepared }) => prepared)
}

/** `toEqual` for many numbers, which it takes one by one: only where bytes differ. */
function expectSame(actual: Float32Array | Int32Array, expected: Float32Array | Int32Array, what: string): void {
  const bytes = ({ buffer, byteOffset, byteLength }: Float32Array | Int32Array) => Buffer.from(buffer, byteOffset, byteLength)
  if (!bytes(actual).equals(bytes(expected))) expect(actual, what).toEqual(expected)
}

const GUARD = 1 // a token or a row that exists, so that reading too far is no crash; writing there shows

const LIMIT = 3e-5

function compare(actual: Downloaded, expected: Downloaded, one: OpCase): void {
  for (const name of one.outputs) {
    const [a, e] = [actual[name]!, expected[name]!]
    let [worst, scale] = [0, 0.1] // inputs are of size one: a gradient that is zero leaves rounding of that size
    for (const value of e) scale = Math.max(scale, Math.abs(value))
    for (let i = 0; i < a.length; i++) worst = Math.max(worst, Math.abs(a[i]! - e[i]!)) // NaN stays NaN
    const limit = e instanceof Int32Array ? 0 : (one.limit ?? LIMIT) * scale
    expect(worst, `${name}: worst difference from tfjs, largest value ${scale}`).toBeLessThanOrEqual(limit)
  }
}

const STEP = 1e-2

/** Along one random direction per input: (S(x + hu) − S(x − hu)) / 2h against dx · u, where S = Σ y · dy. */
async function checkDerivative(backend: Backend, one: OpCase, base: Downloaded): Promise<void> {
  const { outputs, inputs } = one.derivative!
  const weighted = async (tensors: OpCase['tensors']) => {
    const out = await runCase(backend, { ...one, tensors })
    return Object.entries(outputs).reduce((sum, [y, dy]) => sum + dot(out[y]!, one.tensors[dy]!.data), 0)
  }
  for (const [x, dx] of Object.entries(inputs)) {
    const direction = new Random(x.length).normal(one.tensors[x]!.shape).data
    const moved = (h: number): OpCase['tensors'] => {
      const data = Float32Array.from(one.tensors[x]!.data, (value, i) => value + h * direction[i]!)
      return { ...one.tensors, [x]: { ...one.tensors[x]!, data } }
    }
    const numeric = ((await weighted(moved(STEP))) - (await weighted(moved(-STEP)))) / (2 * STEP)
    const before = one.tensors[dx]!.data
    const added = isOverwritten(one, dx) ? base[dx]! : base[dx]!.map((value, i) => value - before[i]!)
    const norm = Math.sqrt(dot(added, added))
    expect(Math.abs(numeric - dot(added, direction)), `${dx} along a random direction: ${numeric}`).toBeLessThanOrEqual(
      1e-2 * norm + 1e-4,
    )
  }
}

/** Gradients start from a value that shows when they are overwritten, from random ones when they are added to. */
function isOverwritten(one: OpCase, name: string): boolean {
  const { data, shape } = one.tensors[name]!
  const untouched = stale(shape).data[0]
  return data.every((value) => value === untouched)
}

function dot(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let sum = 0
  for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]!
  return sum
}

/** Cuts single rows and short runs out of a case; their outputs must have the bits they had among the others. */
async function checkRowsAlone(backend: Backend, one: OpCase, together: Downloaded): Promise<void> {
  const rows = one.tensors[one.rowwise![0]!]!.shape[0]!
  const runs = [0, 1, Math.floor(rows / 2), rows - 1].flatMap((start) => [[start, 1] as const, [start, 3] as const])
  for (const [start, length] of runs.filter(([s, n]) => s >= 0 && s + n <= rows)) {
    const cut = (name: string, data: Float32Array | Int32Array) => {
      if (!one.rowwise!.includes(name)) return data
      const width = count(one.tensors[name]!.shape.slice(1))
      return data.slice(start * width, (start + length) * width)
    }
    const tensors = Object.entries(one.tensors).map(([name, values]) => {
      const shape = one.rowwise!.includes(name) ? [length, ...values.shape.slice(1)] : values.shape
      return [name, { ...values, shape, data: cut(name, values.data) }]
    })
    const alone = await runCase(backend, { ...one, tensors: Object.fromEntries(tensors) })
    for (const name of one.outputs)
      expectSame(alone[name]!, cut(name, together[name]!), `${name} of ${length} rows from ${start}, alone`)
  }
}

async function checkCapture(backend: Backend): Promise<void> {
  const arena = backend.arena(1 << 12)
  const [x, y] = [arena.tensor([4, 6]), arena.tensor([4, 6])]
  backend.ops.fill(y, 0)
  const capture = backend.capture(() => {
    backend.ops.copy(y, x)
    backend.ops.fill(y.rows(1, 1), 9)
  })
  expect(await backend.download(y)).toEqual(new Float32Array(24))
  for (const seed of [1, 2]) {
    const values = new Random(seed).normal([4, 6]).data as Float32Array
    backend.upload(x, values)
    capture.replay()
    expect(await backend.download(y)).toEqual(values.map((value, i) => (i >= 6 && i < 12 ? 9 : value)))
  }
  capture.free()
  capture.free() // a second time does nothing
  arena.close()
}
