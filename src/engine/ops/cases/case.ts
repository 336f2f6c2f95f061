// What a case of the op table is, and the random values it is filled with.

import type { Ops, Tensor } from '../ops'

/** Values on the host, before they go to a device. */
export interface Values {
  readonly shape: readonly number[]
  readonly data: Float32Array | Int32Array
  /** Goes through `prepareWeight`; only ever read. */
  readonly prepared?: true
}

export type Tensors = Readonly<Record<string, Tensor>>

/** One call of an op, or of an op and its backward, on small tensors. */
export interface OpCase {
  readonly op: keyof Ops
  readonly name: string
  /** Inputs, and outputs with what they hold before the call. */
  readonly tensors: Readonly<Record<string, Values>>
  /** Compared with the reference. All other tensors must come back unchanged, `scratch` apart. */
  readonly outputs: readonly string[]
  readonly scratch?: readonly string[]
  run(ops: Ops, t: Tensors): void
  /** Largest difference allowed, relative to the largest expected value. Default 3e-5. */
  readonly limit?: number
  /** How much the op enlarges a rounding of its operands, where it does. */
  readonly enlarges?: number
  /** Gradients to check by finite differences of Σ y · dy: the names of y and dy, of x and dx. */
  readonly derivative?: { readonly outputs: Readonly<Record<string, string>>; readonly inputs: Readonly<Record<string, string>> }
  /** Tensors that can be cut by rows together: any run of rows alone must give the same bits. `run` takes counts from shapes. */
  readonly rowwise?: readonly string[]
}

/** Reproducible values. */
export class Random {
  private state: number
  constructor(seed: number) {
    this.state = Math.imul(seed + 1, 0x9e3779b1)
  }

  uniform(): number {
    this.state = (this.state + 0x6d2b79f5) | 0
    let z = Math.imul(this.state ^ (this.state >>> 15), this.state | 1)
    z ^= z + Math.imul(z ^ (z >>> 7), z | 61)
    return ((z ^ (z >>> 14)) >>> 0) / 2 ** 32
  }

  /** Bell-shaped, mean 0, standard deviation `scale`. */
  normal(shape: readonly number[], scale = 1): Values {
    const one = () => (this.uniform() + this.uniform() + this.uniform() + this.uniform() - 2) * Math.sqrt(3) * scale
    return { shape, data: Float32Array.from({ length: count(shape) }, one) }
  }

  weight(shape: readonly [number, number]): Values {
    return { ...this.normal(shape, 1 / Math.sqrt(shape[1])), prepared: true }
  }

  ints(shape: readonly number[], below: number): Values {
    return { shape, data: Int32Array.from({ length: count(shape) }, () => Math.floor(this.uniform() * below)) }
  }

  /** `length` different numbers below `below`, in random order. */
  distinct(length: number, below: number): Int32Array {
    const all = Int32Array.from({ length: below }, (_, i) => i)
    for (let i = 0; i < length; i++) {
      const j = i + Math.floor(this.uniform() * (below - i))
      ;[all[i], all[j]] = [all[j]!, all[i]!]
    }
    return all.slice(0, length)
  }
}

export function count(shape: readonly number[]): number {
  return shape.reduce((product, n) => product * n, 1)
}

/** What an output holds before it is overwritten: a value that would show. */
export function stale(shape: readonly number[]): Values {
  return { shape, data: new Float32Array(count(shape)).fill(7.5) }
}

export function intsOf(values: ArrayLike<number>, shape: readonly number[] = [values.length]): Values {
  return { shape, data: Int32Array.from(values) }
}

export function floatsOf(values: ArrayLike<number>, shape: readonly number[] = [values.length]): Values {
  return { shape, data: Float32Array.from(values) }
}
