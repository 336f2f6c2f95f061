// What a backend is asked to do, written down call by call, so that the calls of one kind can be repeated by themselves.

import type { Arena, Backend, Ops, Tensor } from '../src/engine/ops/ops'

export interface OpCall {
  readonly op: keyof Ops
  /** Op and sizes, for people; calls of one kind cost the same. */
  readonly kind: string
  /** Enqueues the very call again, on the same memory. */
  readonly again: () => void
  /** Multiplications and additions of its products, and bytes of weights that they read; zero for what is no product. */
  readonly flops: number
  readonly weightBytes: number
}

/** What was enqueued between two waits of the host, or until its inputs were written anew: a part of a long prompt is waited for by nobody. */
export interface LoggedPass {
  readonly calls: OpCall[]
  /** Uploads again what the calls read: passes share their inputs' memory. */
  readonly uploads: (() => void)[]
}

export interface OpLog {
  readonly backend: Backend
  /** Since the last `take`. */
  take(): LoggedPass[]
}

/** The same backend; what would be captured is enqueued each time instead, so that every call is seen. */
export function logOps(backend: Backend): OpLog {
  const written = new Set<unknown>()
  const nothing = (): LoggedPass => {
    written.clear()
    return { calls: [], uploads: [] }
  }
  let passes = [nothing()]
  const ops = Object.fromEntries(
    Object.entries(backend.ops).map(([op, run]) => [
      op,
      (...args: unknown[]) => {
        const call = run as (...args: unknown[]) => void
        call(...args)
        passes.at(-1)!.calls.push({ op: op as keyof Ops, ...describe(op, args), again: () => call(...args) })
      },
    ]),
  ) as unknown as Ops
  const logged: Backend = {
    device: backend.device,
    description: backend.description,
    precision: backend.precision,
    activations: backend.activations,
    ops,
    arena: (bytes): Arena => backend.arena(bytes),
    upload: (to, data) => {
      const place = (to as Partial<{ address: number }>).address ?? to
      if (written.has(place)) passes.push(nothing())
      written.add(place)
      const kept = data.slice() // the caller fills its array anew
      passes.at(-1)!.uploads.push(() => backend.upload(to, kept))
      backend.upload(to, data)
    },
    download: (from, into) => {
      passes.push(nothing())
      return backend.download(from, into)
    },
    fetch: (from, into) => {
      passes.push(nothing())
      return backend.fetch(from, into)
    },
    capture: (run) => ({ replay: run, free: () => {} }),
    prepareWeight: (shape, data, use) => backend.prepareWeight(shape, data, use),
    memory: () => backend.memory(),
    group: backend.group,
    close: () => backend.close(),
  }
  return {
    backend: logged,
    take() {
      const taken = passes.filter(({ calls }) => calls.length > 0)
      passes = [nothing()]
      return taken
    },
  }
}

type Args = Readonly<Record<string, unknown>> & {
  readonly loras?: readonly { readonly parts: readonly number[]; readonly rank: number }[]
}

function describe(op: string, args: readonly unknown[]): Pick<OpCall, 'kind' | 'flops' | 'weightBytes'> {
  const named = (isTensor(args[0]) ? { out: args[0] } : args[0]) as Args
  const matrix = (named['weight'] ?? named['head']) as Tensor | undefined
  const product = matrix !== undefined && matrix.shape.length === 2
  if (!product) return { kind: `${op} ${plainSizes(op, named)}`.trim(), flops: 0, weightBytes: 0 }
  const [out, inner] = matrix.shape as [number, number]
  const pairs = named['targets'] as Tensor | undefined
  const rows = (pairs ?? ((named['x'] ?? named['dx']) as Tensor)).shape[0]!
  const times = productsOf(op, named)
  const flags = [
    named['decode'] === true && 'decode',
    named.loras?.length && `${named.loras.length} LoRA`,
    named['dx'] === undefined && op === 'linearBackward' && 'no dx',
    named['x'] === undefined && op === 'linearBackward' && 'dx alone',
  ]
  const bytes = matrix.dtype === 'bf16' ? 2 : 4
  return {
    kind: `${op} ${rows} x ${inner} → ${out}${flags
      .filter(Boolean)
      .map((flag) => `, ${flag}`)
      .join('')}`,
    flops: 2 * times * rows * out * inner + adapterWork(op, named, rows, [out, inner]),
    weightBytes: times * out * inner * bytes,
  }
}

/** Passes over the matrix: logprobs' gradient computes the logits again where they were not kept. */
function productsOf(op: string, named: Args): number {
  if (op === 'logprobBackward') return (named['logits'] && !named['forward'] ? 1 : 2) + (named['dHead'] ? 1 : 0)
  if (op === 'linearBackward') return (named['dx'] ? 1 : 0) + (named['dWeight'] ? 1 : 0)
  return 1
}

/** Forward x Aᵀ and its Bᵀ; backward the same two for dx, and (where there is x) the gradients of A and B. */
function adapterWork(op: string, named: Args, rows: number, [out, inner]: readonly [number, number]): number {
  const [first] = named.loras ?? []
  if (!first) return 0
  const once = 2 * rows * first.rank * (first.parts.length * inner + out) // rows are divided among the adapters
  return op === 'linearBackward' ? once * (named['dx'] && named['x'] ? 2 : 1) : once
}

/** Ops over a policy's many tensors count as one kind each. */
const OVER_ALL = ['fill', 'sumSquares', 'adamw']

function plainSizes(op: string, named: Args): string {
  if (OVER_ALL.includes(op)) return ''
  const plan = named['plan'] as { segmentCount: number } | undefined
  const main = ['q', 'qkv', 'dqkv', 'gateUp', 'x', 'logits', 'out', 'table', 'to', 'param', 'dTable']
    .map((name) => named[name])
    .find(isTensor)
  const flags = [
    named['delta'] && '+ residual',
    named['lse'] && op === 'attention' && 'for backward',
    plan && `${plan.segmentCount} segments`,
  ]
  return `[${main?.shape.join(' x ') ?? ''}]${flags
    .filter(Boolean)
    .map((flag) => `, ${flag}`)
    .join('')}`
}

function isTensor(value: unknown): value is Tensor {
  return typeof value === 'object' && value !== null && 'dtype' in value
}
