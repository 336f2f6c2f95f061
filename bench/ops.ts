// Times ops at the shapes of SmolLM2-135M: rows M = 1 to 2048 through its linears, head, attention, sampling. Beside each the floor: the longer
// of its multiply-adds at the CPU's peak (base clock) and its weights at the bandwidth measured here. Options: --device D, --quick.

import { existsSync, readFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { openBackend } from '../src/engine/ops/open-backend'
import type { Arena, Backend, Tensor } from '../src/engine/ops/ops'
import { machine, median } from './_report'

interface Timed {
  readonly name: string
  /** Enqueues the op once; `turn` counts up, so that a case can walk over weights that no cache holds. */
  readonly run: (turn: number) => void
  readonly flops: number
  /** What has to come from memory. */
  readonly bytes: number
}

const HIDDEN = 576
const INNER = 1536
const VOCAB = 49152
const HEADS = { heads: 9, kvHeads: 3, headDim: 64 }
const LINEARS = { qkv: [HIDDEN, 960], o: [HIDDEN, HIDDEN], gateUp: [HIDDEN, 2 * INNER], down: [INNER, HIDDEN] } as const
const COLD_BYTES = 96 * 2 ** 20

async function main(): Promise<void> {
  const quick = process.argv.includes('--quick')
  const device = process.argv[process.argv.indexOf('--device') + 1]
  const backend = await openBackend(process.argv.includes('--device') ? (device as 'cpu') : 'auto')
  const arena = backend.arena(2 ** 28)
  const probe = arena.tensor([1])
  const bandwidth = await measureBandwidth(backend, arena, probe)
  const peak = peakFlops(backend.description)
  process.stdout.write(`${JSON.stringify(machine())}\n${backend.description}\n`)
  process.stdout.write(
    `peak at base clock ${(peak / 1e9).toFixed(0)} GFLOP/s, bandwidth measured ${(bandwidth / 1e9).toFixed(1)} GB/s\n`,
  )
  const rows = []
  for (const timed of cases(backend, arena, quick ? [1, 32, 256] : [1, 4, 8, 32, 64, 256, 2048])) {
    const seconds = await time(backend, probe, timed.run)
    const floor = Math.max(timed.flops / peak, timed.bytes / bandwidth)
    const row = {
      name: timed.name,
      microseconds: seconds * 1e6,
      gflops: timed.flops / seconds / 1e9,
      gbps: timed.bytes / seconds / 1e9,
      ofFloor: floor / seconds,
    }
    rows.push(row)
    const columns = [row.microseconds.toFixed(0).padStart(9), row.gflops.toFixed(1).padStart(8), row.gbps.toFixed(1).padStart(7)]
    process.stdout.write(
      `${timed.name.padEnd(40)} ${columns[0]} µs ${columns[1]} GFLOP/s ${columns[2]} GB/s  floor ${(100 * row.ofFloor).toFixed(0)} %\n`,
    )
  }
  backend.close()
  process.stdout.write(`${JSON.stringify({ title: 'ops', ...machine(), backend: backend.description, peak, bandwidth, rows })}\n`)
}

/** Median seconds of one run, in rounds of at least 20 ms. */
async function time(backend: Backend, probe: Tensor, run: (turn: number) => void): Promise<number> {
  let turn = 0
  const round = async (count: number) => {
    const start = performance.now()
    for (let i = 0; i < count; i++) run(turn++)
    await backend.download(probe)
    return (performance.now() - start) / 1e3 / count
  }
  const count = Math.max(1, Math.ceil(0.02 / (await round(2))))
  const rounds: number[] = []
  for (let i = 0; i < 7; i++) rounds.push(await round(count))
  return median(rounds)
}

/** Bytes a second that a sum over a block larger than the caches reads. */
async function measureBandwidth(backend: Backend, arena: Arena, probe: Tensor): Promise<number> {
  const block = arena.tensor([2 ** 25])
  backend.ops.fill(block, 1e-3)
  return 2 ** 27 / (await time(backend, probe, () => backend.ops.sumSquares({ out: probe, x: block })))
}

/** Two multiply-adds a cycle and core of the widest vectors. */
function peakFlops(description: string): number {
  const perCycle = description.startsWith('avx512') ? 64 : description.startsWith('avx2') ? 32 : 16
  const threads = Number(/(\d+) threads?/.exec(description)?.[1] ?? 1)
  // Virtual machines often hide the clock from os.cpus().
  const told = existsSync('/proc/cpuinfo') ? /^cpu MHz\s*: ([\d.]+)/m.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[1] : undefined
  return Number(told ?? cpus()[0]?.speed ?? 0) * 1e6 * perCycle * threads
}

function* cases(backend: Backend, arena: Arena, rows: readonly number[]): Generator<Timed> {
  const mark = arena.mark()
  for (const m of rows) {
    for (const [name, [inner, out]] of Object.entries(LINEARS)) {
      yield* linearCases(backend, arena, { name, m, inner, out })
      arena.reset(mark)
    }
    yield* rowCases(backend, arena, m)
    arena.reset(mark)
    if (m >= 32 && m <= 256) yield* headCases(backend, arena, m)
    arena.reset(mark)
  }
  for (const [sequences, length, context] of [
    [1, 256, 256],
    [8, 64, 400],
    [32, 1, 300],
    [1, 1, 2000],
  ] as const) {
    yield* attentionCases(backend, arena, { sequences, length, context })
    arena.reset(mark)
  }
}

const weightCache = new Map<string, Tensor[]>()

/** Copies of a weight, enough that none is in a cache when its turn comes. */
function coldWeights(backend: Backend, out: number, inner: number): Tensor[] {
  const key = `${out} ${inner}`
  const found = weightCache.get(key)
  if (found) return found
  const copies = Math.max(1, Math.ceil(COLD_BYTES / (out * inner * 4)))
  const data = noise(out * inner, 0.05)
  const made = Array.from({ length: copies }, () => backend.prepareWeight([out, inner], data))
  weightCache.set(key, made)
  return made
}

function* linearCases(
  backend: Backend,
  arena: Arena,
  shape: { name: string; m: number; inner: number; out: number },
): Generator<Timed> {
  const { name, m, inner, out } = shape
  const weights = coldWeights(backend, out, inner)
  const weight = (turn: number) => weights[turn % weights.length]!
  const [x, y] = [filled(backend, arena, [m, inner]), filled(backend, arena, [m, out])]
  const cost = { flops: 2 * m * inner * out, bytes: 4 * inner * out }
  yield { name: `linear ${name} ${m}`, run: (turn) => backend.ops.linear({ y, x, weight: weight(turn) }), ...cost }
  const slice = { rowStart: 0, rowCount: m, parts: [out], rank: 16, scale: 2, xa: arena.tensor([m, 16]) }
  const [a, b, da, db] = [
    [16, inner],
    [out, 16],
    [16, inner],
    [out, 16],
  ].map((s) => filled(backend, arena, s)) as [Tensor, Tensor, Tensor, Tensor]
  const loras = [{ ...slice, a, b, da, db }]
  const loraFlops = 2 * m * 16 * (inner + out)
  const withLora = { flops: cost.flops + loraFlops, bytes: cost.bytes }
  yield {
    name: `linear ${name} ${m} + adapter`,
    run: (turn) => backend.ops.linear({ y, x, weight: weight(turn), loras }),
    ...withLora,
  }
  if (m < 64) return
  const dx = arena.tensor([m, inner])
  const run = (turn: number) => backend.ops.linearBackward({ dx, dy: y, x, weight: weight(turn), loras })
  yield { name: `linearBackward ${name} ${m} + adapter`, run, flops: cost.flops + 2 * loraFlops, bytes: cost.bytes }
}

function* rowCases(backend: Backend, arena: Arena, m: number): Generator<Timed> {
  const [x, delta, y, rstd] = [
    filled(backend, arena, [m, HIDDEN]),
    filled(backend, arena, [m, HIDDEN]),
    arena.tensor([m, HIDDEN]),
    arena.tensor([m]),
  ]
  const weight = filled(backend, arena, [HIDDEN])
  const norm = () => backend.ops.rmsNorm({ y, rstd, x, delta, sum: x, weight, eps: 1e-5 })
  yield { name: `rmsNorm ${m}`, run: norm, flops: 6 * m * HIDDEN, bytes: 16 * m * HIDDEN }
  const [gateUp, inner] = [filled(backend, arena, [m, 2 * INNER]), arena.tensor([m, INNER])]
  yield { name: `swiglu ${m}`, run: () => backend.ops.swiglu({ y: inner, gateUp }), flops: 25 * m * INNER, bytes: 12 * m * INNER }
}

function* headCases(backend: Backend, arena: Arena, m: number): Generator<Timed> {
  const head = coldWeights(backend, VOCAB, HIDDEN)[0]!
  const hidden = filled(backend, arena, [m, HIDDEN])
  const bytes = 4 * VOCAB * HIDDEN
  const flops = 2 * m * VOCAB * HIDDEN
  if (m === 32) {
    const logits = arena.tensor([m, VOCAB])
    yield { name: `linear head ${m}`, run: () => backend.ops.linear({ y: logits, x: hidden, weight: head }), flops, bytes }
    yield* sampleCases(backend, arena, logits)
  }
  const ints = () =>
    integers(
      backend,
      arena,
      Int32Array.from({ length: m }, (_, i) => i),
    )
  const numbers = { logprobs: arena.tensor([m]), entropies: arena.tensor([m]), lse: arena.tensor([m]) }
  const all = { ...numbers, hidden, rows: ints(), targets: ints(), head, temperature: 1 }
  yield { name: `logprob ${m}`, run: () => backend.ops.logprob(all), flops, bytes }
  const gradient = { dHidden: arena.tensor([m, HIDDEN]), dLogprobs: filled(backend, arena, [m]) }
  yield {
    name: `logprobBackward ${m}`,
    run: () => backend.ops.logprobBackward({ ...all, ...gradient }),
    flops: 2 * flops,
    bytes: 2 * bytes,
  }
}

function* sampleCases(backend: Backend, arena: Arena, logits: Tensor): Generator<Timed> {
  const m = logits.shape[0]!
  for (const [name, topP, temperature] of [
    ['T 1', 1, 1],
    ['T 0.7', 1, 0.7],
    ['top-p 0.95', 0.95, 1],
  ] as const) {
    const floats = arena.tensor([m, 6])
    backend.upload(
      floats,
      Float32Array.from({ length: 6 * m }, (_, i) => [temperature, topP, 0, 1, 0.5, 0][i % 6]!),
    )
    const ints = integers(backend, arena, new Int32Array(4 * m), [m, 4])
    const results = { tokens: arena.tensor([m], 'i32'), logprobs: arena.tensor([m, 2]), history: arena.tensor([1], 'i32') }
    const run = () => backend.ops.sample({ logits, floats, ints, ...results })
    yield { name: `sample ${m}, ${name}`, run, flops: 20 * m * VOCAB, bytes: 4 * m * VOCAB }
  }
}

/** `sequences` with a common prefix: all but the last `length` of `context` entries. */
function* attentionCases(
  backend: Backend,
  arena: Arena,
  plan: { sequences: number; length: number; context: number },
): Generator<Timed> {
  const { sequences, length, context } = plan
  const prefix = context - length
  const [tokens, slots] = [sequences * length, prefix + sequences * length]
  const entries = Array.from({ length: sequences }, (_, s) =>
    Array.from({ length: context }, (_, i) => (i < prefix ? i : prefix + s * length + i - prefix)),
  )
  const segments = Array.from({ length: sequences }, (_, s) => [s * length, length, s * context, context])
  const tree = {
    segments: integers(backend, arena, Int32Array.from(segments.flat()), [sequences, 4]),
    context: integers(backend, arena, Int32Array.from(entries.flat())),
    segmentCount: sequences,
  }
  const [width, kvWidth] = [HEADS.heads * HEADS.headDim, HEADS.kvHeads * HEADS.headDim]
  const rows = () => filled(backend, arena, [tokens, width])
  const keys = () => filled(backend, arena, [slots, kvWidth])
  const lse = arena.tensor([tokens, HEADS.heads])
  const all = { out: rows(), q: rows(), k: keys(), v: keys(), plan: tree, lse, ...HEADS }
  const seen = sequences * (length * prefix + (length * (length + 1)) / 2)
  const [flops, bytes] = [4 * seen * width, 8 * sequences * context * kvWidth]
  const name = `${sequences} × ${length} rows of context ${context}`
  yield { name: `attention ${name}`, run: () => backend.ops.attention(all), flops, bytes }
  if (length === 1) return
  const gradients = { dq: rows(), dk: keys(), dv: keys(), dOut: rows() }
  yield {
    name: `attentionBackward ${name}`,
    run: () => backend.ops.attentionBackward({ ...all, ...gradients }),
    flops: 2.5 * flops,
    bytes: 2 * bytes,
  }
}

function filled(backend: Backend, arena: Arena, shape: readonly number[]): Tensor {
  const tensor = arena.tensor(shape)
  backend.upload(
    tensor,
    noise(
      shape.reduce((a, b) => a * b, 1),
      1,
    ),
  )
  return tensor
}

function integers(backend: Backend, arena: Arena, data: Int32Array, shape: readonly number[] = [data.length]): Tensor {
  const tensor = arena.tensor(shape, 'i32')
  backend.upload(tensor, data)
  return tensor
}

/** Uniform in ±scale, the same at every run. */
function noise(count: number, scale: number): Float32Array {
  let state = 12345
  return Float32Array.from({ length: count }, () => {
    state = (Math.imul(state, 1103515245) + 12345) & 0x7fffffff
    return (2 * (state / 0x7fffffff) - 1) * scale
  })
}

void main()
