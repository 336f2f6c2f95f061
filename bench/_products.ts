// The products of one native library at SmolLM2-135M's and arbor-tiny's shapes: timed, and compared with a slow judge that rounds operands as the
// precision says and sums in double.

import type { Arena, Backend, Precision, Tensor } from '../src/engine/ops/ops'

const SHAPES: Readonly<Record<string, readonly [number, number]>> = {
  qkv: [576, 960],
  o: [576, 576],
  gateUp: [576, 3072],
  down: [1536, 576],
  head: [576, 49152],
  'tiny qkv': [128, 256],
  'tiny gateUp': [128, 768],
  'tiny down': [384, 128],
}
const ROWS = [1, 8, 32, 256, 2609]
const HEAD_ROWS = 256 // as many rows go through the head at once
const SAMPLES = 60 // numbers of each product that the judge computes

interface Product {
  readonly name: string
  readonly m: number
  readonly inner: number
  readonly out: number
  readonly weight: Tensor
  readonly weights: Float32Array
  readonly x: Float32Array
  readonly tensors: { readonly x: Tensor; readonly y: Tensor; readonly dy: Tensor; readonly dx: Tensor }
}

export interface ProductOptions {
  readonly check: boolean
  /** Seconds of CPU time instead of the clock's: what a busy machine can still tell. */
  readonly cpuTime: boolean
  readonly log: (line: string) => void
}

/** Runs all of them; returns how many numbers were wrong. One line each goes to `log`. */
export async function products(backend: Backend, { check, cpuTime, log }: ProductOptions): Promise<number> {
  const now = cpuTime ? cpuMilliseconds : () => performance.now()
  let wrong = 0
  for (const [name, [inner, out]] of Object.entries(SHAPES)) {
    const weights = noise(out * inner, 1, 1 / Math.sqrt(inner))
    const weight = backend.prepareWeight([out, inner], weights)
    const firsts: (readonly [number, Float32Array])[] = []
    for (const m of ROWS.filter((rows) => out < 10_000 || rows <= HEAD_ROWS)) {
      const arena = backend.arena(8 * m * (inner + out) + 4096)
      const one = product(backend, arena, { name, m, inner, out, weight, weights })
      const forward = await time(backend, now, one, () => backend.ops.linear({ y: one.tensors.y, x: one.tensors.x, weight }))
      const backward =
        out < 10_000 ? await time(backend, now, one, () => backend.ops.linearBackward({ ...one.tensors, weight })) : undefined
      const shown = [forward, backward].map((gflops) => (gflops === undefined ? '       ' : gflops.toFixed(0).padStart(7)))
      let line = `${backend.precision.padEnd(5)} ${name.padEnd(12)} ${String(m).padStart(5)} rows  y ${shown[0]}  dx ${shown[1]} GFLOP/s`
      if (check) {
        const found = await compare(backend, one, backward !== undefined)
        firsts.push([m, found.firstRow])
        const stray = firsts.some(([, row]) => row.some((value, i) => value !== firsts[0]![1][i]))
        wrong += found.wrong + (stray ? 1 : 0)
        line += `  worst ${found.worst.toExponential(1)} of what is allowed${found.wrong ? '  WRONG' : ''}${stray ? '  ROWS DEPEND ON EACH OTHER' : ''}`
      }
      log(line)
      arena.close()
    }
  }
  return wrong
}

function product(backend: Backend, arena: Arena, shape: Omit<Product, 'x' | 'tensors'>): Product {
  const { m, inner, out } = shape
  const x = noise(m * inner, 2, 1)
  const tensors = {
    x: arena.tensor([m, inner]),
    y: arena.tensor([m, out]),
    dy: arena.tensor([m, out]),
    dx: arena.tensor([m, inner]),
  }
  backend.upload(tensors.x, x)
  backend.upload(tensors.dy, noise(m * out, 3, 1))
  return { ...shape, x, tensors }
}

function cpuMilliseconds(): number {
  const { user, system } = process.cpuUsage()
  return (user + system) / 1e3
}

/** GFLOP/s of the best of five rounds of at least 8 ms. */
async function time(backend: Backend, now: () => number, { m, inner, out, tensors }: Product, run: () => void): Promise<number> {
  const probe = tensors.x.rows(0, 1)
  const round = async (count: number) => {
    const start = now()
    for (let i = 0; i < count; i++) run()
    await backend.download(probe)
    return (now() - start) / 1e3 / count
  }
  const count = Math.max(1, Math.ceil(0.008 / (await round(1))))
  let best = Infinity
  for (let i = 0; i < 5; i++) best = Math.min(best, await round(count))
  return (2 * m * inner * out) / best / 1e9
}

/** A sample of both products against the judge; `worst` is the largest error as a share of the limit. */
async function compare(
  backend: Backend,
  one: Product,
  backward: boolean,
): Promise<{ worst: number; wrong: number; firstRow: Float32Array }> {
  const { m, inner, out, weights, x, tensors } = one
  const round = rounding(backend.precision)
  const y = (await backend.download(tensors.y)) as Float32Array
  const dx = (await backend.download(tensors.dx)) as Float32Array
  const dy = noise(m * out, 3, 1)
  let [worst, wrong] = [0, 0]
  const judge = (actual: number, length: number, pair: (k: number) => readonly [number, number]) => {
    let [sum, sizes] = [0, 0]
    for (let k = 0; k < length; k++) {
      const [a, b] = pair(k)
      sum += round(a) * round(b)
      sizes += Math.abs(round(a) * round(b))
    }
    const share = Math.abs(actual - sum) / (sizes * 2 ** -24 * (8 + Math.sqrt(length)))
    worst = Math.max(worst, share)
    if (!(share <= 1)) wrong++
  }
  for (let s = 0; s < SAMPLES; s++) {
    const [t, o, i] = [
      (s * 7919) % m,
      (s * 104_729 + (s % 2 ? out - 1 : 0)) % out,
      (s * 15_485_863 + (s % 2 ? inner - 1 : 0)) % inner,
    ]
    judge(y[t * out + o]!, inner, (k) => [x[t * inner + k]!, weights[o * inner + k]!])
    if (backward) judge(dx[t * inner + i]!, out, (k) => [dy[t * out + k]!, weights[k * inner + i]!])
  }
  const firstRow = Float32Array.from([...y.subarray(0, out), ...(backward ? dx.subarray(0, inner) : [])])
  return { worst, wrong, firstRow }
}

const bits = new DataView(new ArrayBuffer(4))

/** The nearest number of the precision, ties to even. */
function rounding(precision: Precision): (value: number) => number {
  if (precision === 'f32') return (value) => value
  return (value) => {
    bits.setFloat32(0, value)
    const word = bits.getUint32(0)
    bits.setUint32(0, ((word + 0x7fff + ((word >>> 16) & 1)) & 0xffff0000) >>> 0)
    return bits.getFloat32(0)
  }
}

/** Uniform in ±scale, the same at every run. */
export function noise(count: number, seed: number, scale: number): Float32Array {
  let state = 12345 + seed
  return Float32Array.from({ length: count }, () => {
    state = (Math.imul(state, 1103515245) + 12345) & 0x7fffffff
    return (2 * (state / 0x7fffffff) - 1) * scale
  })
}
