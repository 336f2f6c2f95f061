// The TensorFlow.js backend: the judge of the native ones. Tensors live in host memory; every op runs at once, as tfjs computes it.

import { createRequire } from 'node:module'
import { BackendError } from '../../errors'
import { BumpArena } from './arena'
import { loneGroup } from './lone-group'
import type { Backend, Capture, Ops, Tensor, TypedArray } from './ops'
import { HostTensor, type Tf, values } from './tfjs-memory'
import { tfjsOps } from './tfjs-ops'

/** Opens tfjs-node-gpu where it is installed and loads, else tfjs in plain JavaScript (about 1 GFLOP/s). */
export async function openTfjs(): Promise<Backend> {
  const { tf, description } = loadTfjs()
  tf.enableProdMode() // else tfjs prints advice
  if (description === PLAIN) await tf.setBackend('cpu')
  await tf.ready()
  return new TfjsBackend(tf, description)
}

const PLAIN = 'TensorFlow.js in plain JavaScript'

function loadTfjs(): { tf: Tf; description: string } {
  const load = createRequire(__filename)
  try {
    return { tf: load('@tensorflow/tfjs-node-gpu') as Tf, description: 'TensorFlow.js with tfjs-node-gpu' }
  } catch {
    return { tf: load('@tensorflow/tfjs') as Tf, description: PLAIN } // an optional dependency that is not there is no error
  }
}

class TfjsBackend implements Backend {
  readonly device = 'tfjs'
  readonly precision = 'f32'
  readonly activations = 'f32'
  readonly ops: Ops
  readonly group = loneGroup('TensorFlow.js')
  private recording: (() => void)[] | null = null

  constructor(
    tf: Tf,
    readonly description: string,
  ) {
    const enqueue = (op: string, work: () => void) => this.enqueue(op, () => tf.tidy(work))
    const ops = Object.entries(tfjsOps(tf)).map(([op, body]) => {
      const run = body as (...args: unknown[]) => void
      return [op, (...args: unknown[]) => enqueue(op, () => run(...args))]
    })
    this.ops = Object.fromEntries(ops) as Ops
  }

  arena(bytes: number): BumpArena<ArrayBuffer> {
    return new BumpArena<ArrayBuffer>({ allocate: (size) => new ArrayBuffer(size), view: HostTensor.view, free: () => {} }, bytes)
  }

  upload(to: Tensor, data: TypedArray): void {
    const target = values(to)
    if (target.length !== data.length)
      throw new BackendError(`${data.length} values for a tensor [${to.shape}].`, { op: 'upload' })
    target.set(data)
  }

  memory(): null {
    return null
  }

  async download(from: Tensor, into?: TypedArray): Promise<TypedArray> {
    if (!into) return values(from).slice()
    if (into.length !== values(from).length)
      throw new BackendError(`A tensor [${from.shape}] into ${into.length} values.`, { op: 'download' })
    into.set(values(from))
    return into
  }

  fetch(from: Tensor, into?: TypedArray): () => Promise<TypedArray> {
    const copied = this.download(from, into)
    return () => copied
  }

  capture(run: () => void): Capture {
    const recorded: (() => void)[] = []
    this.recording = recorded
    try {
      run()
    } finally {
      this.recording = null
    }
    return {
      replay: () => {
        for (const work of recorded) work()
      },
      free: () => void recorded.splice(0),
    }
  }

  prepareWeight(shape: readonly [number, number], data: Float32Array): Tensor {
    return new HostTensor('f32', shape, data)
  }

  close(): void {}

  private enqueue(op: string, work: () => void): void {
    const guarded = () => {
      try {
        work()
      } catch (cause) {
        throw new BackendError(`TensorFlow.js could not run ${op}: ${(cause as Error).message}`, { op, cause })
      }
    }
    if (this.recording) this.recording.push(guarded)
    else guarded()
  }
}
