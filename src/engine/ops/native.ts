// A native library as a Backend: memory, the stream, captures. What the ops pass on is in native-ops.ts.

import { BackendError } from '../../errors'
import { BumpArena } from './arena'
import { NativeGroup } from './native-group'
import { loadNative, type NativeCalls, type NativeValue, nativeError } from './native-library'
import { nativeOps } from './native-ops'
import { NativeTensor, TYPE } from './native-tensor'
import type { Arena, Backend, Capture, Ops, Precision, Tensor, TypedArray } from './ops'

/** A library that lies on disk and loads on this machine. */
export interface NativeLibrary {
  readonly path: string
  readonly description: string
}

const BUSY = 1
/** A wait this short, as for one token of a tiny model, is on our own thread: the way through another and back costs 100 µs of computing. */
const SHORT_WAIT_US = 4000

/** A device's memory is its own until somebody takes it: an arena there takes no more than it needs, in blocks of this many bytes. */
const DEVICE_GROWTH = 128 * 1024 ** 2

export interface NativeOptions {
  /** Default 'cpu'. */
  readonly device?: 'cpu' | 'cuda'
  /** Which of the library's devices; default 0. */
  readonly index?: number
  /** 'auto' (default): the one in which the library is fastest on this CPU. */
  readonly precision?: Precision | 'auto'
}

/** Opens a stream of its own on the library; any number may be open in one process. */
export function openNative(
  library: NativeLibrary,
  { precision = 'auto', device = 'cpu', index = 0 }: NativeOptions = {},
): Backend {
  const calls = loadNative(library.path)
  const best = () => (Number(calls.call('arbor_best_precision')()) === TYPE.bf16 ? 'bf16' : 'f32')
  return new NativeBackend(calls, { ...library, device, index }, precision === 'auto' ? best() : precision)
}

class NativeBackend implements Backend {
  readonly device: 'cpu' | 'cuda'
  readonly description: string
  readonly activations: 'f32' | 'bf16'
  readonly ops: Ops
  readonly group: NativeGroup
  private stream: number | null
  private waiting = 0
  private closed = false
  /** Everything taken of the device and not given back: it ends with the backend. */
  private readonly blocks = new Set<number>()
  private readonly captures = new Set<number>()
  /** Where downloads go that have not arrived, by their tickets: the stream writes there even if nobody waits for them any more. */
  private readonly arriving = new Map<number, TypedArray>()

  constructor(
    private readonly calls: NativeCalls,
    { description, device, index }: NativeLibrary & Required<Pick<NativeOptions, 'device' | 'index'>>,
    readonly precision: Precision,
  ) {
    this.device = device
    this.activations = device === 'cuda' ? precision : 'f32' // CPUs compute in f32 and round inside the product
    this.stream = Number(this.run('arbor_open', index))
    // A GPU's name is known once it is open.
    this.description = device === 'cuda' ? String(calls.call('arbor_description')()) : description
    this.ops = nativeOps(calls, () => this.open('op'))
    const call = (name: string, ...values: NativeValue[]) => Number(this.run(name, this.open('group'), ...values))
    this.group = new NativeGroup({ call, download: (tensor) => this.download(tensor) })
  }

  arena(bytes: number): Arena {
    const free = (block: number) => {
      if (this.blocks.delete(block)) this.run('arbor_free', this.stream, block)
    }
    const source = { allocate: (size: number) => this.allocate(size), view: NativeTensor.view, free }
    return new BumpArena<number>(source, bytes, this.device === 'cuda' ? DEVICE_GROWTH : undefined)
  }

  upload(to: Tensor, data: TypedArray): void {
    const target = to as NativeTensor
    if (target.length !== data.length)
      throw new BackendError(`${data.length} values for a tensor [${to.shape}].`, { op: 'upload' })
    if (data.length > 0) this.run('arbor_upload', this.open('upload'), target.address, data, data.byteLength)
  }

  async download(from: Tensor, into?: TypedArray): Promise<TypedArray> {
    return this.fetch(from, into)()
  }

  fetch(from: Tensor, into = ownValues(from as NativeTensor)): () => Promise<TypedArray> {
    const { length, address, bytes } = from as NativeTensor
    if (into.length !== length) throw new BackendError(`A tensor [${from.shape}] into ${into.length} values.`, { op: 'download' })
    const ticket = Number(this.run('arbor_download', this.open('download'), into, address, bytes))
    this.arriving.set(ticket, into)
    return async () => {
      await this.wait(ticket)
      return into
    }
  }

  capture(run: () => void): Capture {
    this.run('arbor_capture_begin', this.open('capture'))
    let recorded: number
    try {
      run()
    } finally {
      recorded = Number(this.run('arbor_capture_end', this.stream))
      this.captures.add(recorded)
    }
    return {
      replay: () => void this.run('arbor_replay', this.open('capture'), recorded),
      free: () => {
        if (!this.closed && this.captures.delete(recorded)) this.run('arbor_capture_free', this.stream, recorded)
      },
    }
  }

  prepareWeight(shape: readonly [number, number], data: Float32Array, { adapted = false } = {}): Tensor {
    const [out, inner] = shape
    if (data.length !== out * inner)
      throw new BackendError(`${data.length} values for a weight [${shape}].`, { op: 'prepareWeight' })
    const type = Number(this.run('arbor_weight_type', TYPE[this.precision], Number(adapted)))
    const memory = this.allocate(Number(this.run('arbor_weight_bytes', type, out, inner)))
    this.run('arbor_prepare_weight', this.open('prepareWeight'), memory, type, data, out, inner)
    return new NativeTensor(type === TYPE.f32 || type === TYPE.f32Panels ? 'f32' : 'bf16', shape, memory, type)
  }

  memory(): { readonly free: number; readonly total: number } | null {
    if (this.device === 'cpu') return null
    const stream = this.open('memory')
    return { free: Number(this.run('arbor_memory', stream, 0)), total: Number(this.run('arbor_memory', stream, 1)) }
  }

  close(): void {
    if (this.closed) return
    this.group.leave() // a sum that waits for the others would hold the stream for ever
    this.closed = true
    if (this.waiting === 0) this.release()
  }

  private open(op: string): number {
    if (this.closed || this.stream === null) throw new BackendError('The backend is closed.', { op })
    return this.stream
  }

  /** A call of the library; null and negative answers become BackendError. */
  private run(name: string, ...values: NativeValue[]): number | bigint {
    const answer = this.calls.call(name)(...values)
    if (answer === null || Number(answer) < 0) throw nativeError(this.calls.lastError(), name.replace('arbor_', ''), answer)
    return answer as number | bigint
  }

  private allocate(bytes: number): number {
    const memory = Number(this.run('arbor_alloc', this.open('allocate'), bytes))
    this.blocks.add(memory)
    return memory
  }

  /** Everything up to the ticket is done; an error on the way is thrown. A backend that is closed meanwhile ends with the last wait. */
  private async wait(ticket: number): Promise<void> {
    const stream = this.open('download')
    const wait = this.calls.call('arbor_wait')
    this.waiting++
    try {
      if (wait(stream, ticket, SHORT_WAIT_US) === BUSY)
        await new Promise<void>((resolve, reject) =>
          wait.async(stream, ticket, -1, (error: unknown) => (error ? reject(error) : resolve())),
        )
      for (const earlier of this.arriving.keys()) if (earlier <= ticket) this.arriving.delete(earlier)
      this.run('arbor_status', stream, ticket)
    } finally {
      this.waiting--
      if (this.closed && this.waiting === 0) this.release()
    }
  }

  private release(): void {
    this.run('arbor_close', this.stream)
    this.stream = null
    for (const recorded of this.captures) this.run('arbor_capture_free', null, recorded)
    for (const memory of this.blocks) this.run('arbor_free', null, memory)
    this.blocks.clear()
  }
}

/** Room for a tensor's values: a buffer of its own lies outside the collected heap and never moves while the stream writes into it. */
function ownValues({ dtype, length, bytes }: NativeTensor): TypedArray {
  const buffer = new ArrayBuffer(Math.max(bytes, 1))
  if (dtype === 'f32') return new Float32Array(buffer, 0, length)
  return dtype === 'i32' ? new Int32Array(buffer, 0, length) : new Uint16Array(buffer, 0, length)
}
