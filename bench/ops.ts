// Times ops at the shapes of SmolLM2-135M: rows M = 1 to 2048 through its linears, head, attention, sampling. Beside each the floor: the longer
// of its multiply-adds at the CPU's peak (base clock) and its weights at the bandwidth measured here. Options: --device D, --precision P, --quick, --only TEXT.
// With --products it times the products alone, at every instruction set that this CPU has and at both precisions (or those of --isa, --precision);
// with --cpu-time by CPU time (of one thread with ARBOR_THREADS=1), with --check it also compares them with a slow judge, and fails when one is wrong.

import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { parseArgs } from 'node:util'
import { possibleIsas } from '../src/engine/ops/build-native'
import { type Device, openBackend } from '../src/engine/ops/open-backend'
import type { Arena, Backend, Precision, Tensor } from '../src/engine/ops/ops'
import { noise, products } from './_products'
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
/** What attention is asked for: a prompt alone, the training pack of a step, its decode, long contexts; of SmolLM2-135M and of arbor-tiny. */
const TINY = { heads: 4, kvHeads: 2, headDim: 32 }
const TREES: readonly Tree[] = [
  { ...HEADS, name: 'prompt of 256', common: 0, groups: 1, own: 0, completions: 1, length: 256 },
  { ...HEADS, name: 'pack 249 + 8 × 43 + 32 × 63', common: 249, groups: 8, own: 43, completions: 4, length: 63, pack: true },
  {
    ...HEADS,
    name: 'decode of 32 after 249 + 43 + 31',
    common: 249,
    groups: 8,
    own: 43,
    completions: 4,
    length: 1,
    generated: 31,
  },
  { ...HEADS, name: 'decode of 1 after 2000', common: 2000, groups: 1, own: 0, completions: 1, length: 1 },
  { ...TINY, name: 'tiny pack 129 + 8 × 63 + 32 × 42', common: 129, groups: 8, own: 63, completions: 4, length: 42, pack: true },
  {
    ...TINY,
    name: 'tiny decode of 32 after 129 + 63 + 20',
    common: 129,
    groups: 8,
    own: 63,
    completions: 4,
    length: 1,
    generated: 20,
  },
]
const COLD_BYTES = 96 * 2 ** 20

const { values: options } = parseArgs({
  options: {
    device: { type: 'string', default: 'auto' },
    precision: { type: 'string' },
    isa: { type: 'string' },
    quick: { type: 'boolean', default: false },
    only: { type: 'string', default: '' },
    'cpu-time': { type: 'boolean', default: false },
    check: { type: 'boolean', default: false },
    products: { type: 'boolean', default: false },
  },
})

function main(): Promise<void> {
  if (!options.products && !options.check) return allOps()
  return options.isa === undefined ? Promise.resolve(everyIsa()) : allProducts(options.isa)
}

/** A process for each instruction set: a library is chosen once for a process. */
function everyIsa(): void {
  process.stdout.write(`${JSON.stringify(machine())}\n`)
  for (const isa of possibleIsas()) {
    const env = { ...process.env, ARBOR_MAX_ISA: isa }
    const child = spawnSync(process.execPath, [...process.argv.slice(1), '--isa', isa], { env, stdio: 'inherit' })
    if (child.status !== 0) process.exitCode = 1
  }
}

async function allProducts(isa: string): Promise<void> {
  process.env['ARBOR_MAX_ISA'] = isa
  for (const precision of options.precision ? [options.precision as Precision] : (['f32', 'bf16'] as const)) {
    const backend = await openBackend('cpu', { precision })
    process.stdout.write(`${backend.description}, ${backend.precision}\n`)
    const wrong = await products(backend, {
      check: options.check,
      cpuTime: options['cpu-time'],
      log: (line) => process.stdout.write(`${line}\n`),
    })
    if (wrong > 0) process.exitCode = 1
    backend.close()
  }
}

async function allOps(): Promise<void> {
  const quick = options.quick
  const backend = await openBackend(options.device as Device, { precision: (options.precision ?? 'auto') as Precision | 'auto' })
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
    if (!timed.name.includes(options.only)) continue
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
      `${timed.name.padEnd(58)} ${columns[0]} µs ${columns[1]} GFLOP/s ${columns[2]} GB/s  floor ${(100 * row.ofFloor).toFixed(0)} %\n`,
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
  const perCycle =
    description.startsWith('avx512') || description.startsWith('amx') ? 64 : description.startsWith('avx2') ? 32 : 16
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
  for (const tree of TREES) {
    yield* attentionCases(backend, arena, tree)
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
  const data = noise(out * inner, 0, 0.05)
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

interface Tree {
  readonly name: string
  readonly heads: number
  readonly kvHeads: number
  readonly headDim: number
  /** Tokens that all sequences begin with, further ones of each group, and sequences in a group. */
  readonly common: number
  readonly groups: number
  readonly own: number
  readonly completions: number
  /** Rows computed of each sequence, after `generated` earlier ones. */
  readonly length: number
  readonly generated?: number
  /** The prompts' rows are computed too, as in training. */
  readonly pack?: boolean
}

const range = (from: number, count: number) => Array.from({ length: count }, (_, i) => from + i)

/** The tree's segments: rows computed, and the slots they read. */
function segmentsOf({ common, groups, own, completions, length, generated = 0, pack = false }: Tree) {
  const prefix = range(0, common)
  const all = pack ? [{ rows: common, slots: prefix }] : []
  let next = common
  for (let group = 0; group < groups; group++) {
    const prompt = [...prefix, ...range(next, own)]
    next += own
    if (pack) all.push({ rows: own, slots: prompt })
    for (let i = 0; i < completions; i++, next += generated + length)
      all.push({ rows: length, slots: [...prompt, ...range(next, generated + length)] })
  }
  return { segments: all, slots: next }
}

function* attentionCases(backend: Backend, arena: Arena, tree: Tree): Generator<Timed> {
  const { heads, kvHeads, headDim } = tree
  const { segments, slots } = segmentsOf(tree)
  let [tokens, entries, seen] = [0, 0, 0]
  const table = segments.flatMap((segment) => {
    const row = [tokens, segment.rows, entries, segment.slots.length]
    tokens += segment.rows
    entries += segment.slots.length
    seen += segment.rows * (segment.slots.length - (segment.rows - 1) / 2)
    return row
  })
  const plan = {
    segments: integers(backend, arena, Int32Array.from(table), [segments.length, 4]),
    context: integers(backend, arena, Int32Array.from(segments.flatMap((segment) => segment.slots))),
    segmentCount: segments.length,
  }
  const rows = () => filled(backend, arena, [tokens, heads * headDim])
  const keys = () => filled(backend, arena, [slots, kvHeads * headDim])
  const all = { out: rows(), q: rows(), k: keys(), v: keys(), plan, lse: arena.tensor([tokens, heads]), heads, kvHeads, headDim }
  const [flops, bytes] = [4 * seen * heads * headDim, 8 * slots * kvHeads * headDim]
  yield { name: `attention ${tree.name}`, run: () => backend.ops.attention({ ...all, decode: tree.length === 1 }), flops, bytes }
  if (tree.length === 1) return
  const gradients = { dq: rows(), dk: keys(), dv: keys(), dOut: rows() }
  const run = () => backend.ops.attentionBackward({ ...all, ...gradients })
  yield { name: `attentionBackward ${tree.name}`, run, flops: 2.5 * flops, bytes: 2 * bytes }
}

function filled(backend: Backend, arena: Arena, shape: readonly number[]): Tensor {
  const tensor = arena.tensor(shape)
  backend.upload(
    tensor,
    noise(
      shape.reduce((a, b) => a * b, 1),
      0,
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

void main()
