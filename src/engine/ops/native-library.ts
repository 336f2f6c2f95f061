// Loads a native library through koffi. The prototypes come from kernels/arbor_ops.h itself, so binding and library can't drift apart.

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import koffi from 'koffi'
import { BackendError, OutOfMemoryError } from '../../errors'
import { packageRoot } from '../package-root'
import type { TypedArray } from './ops'

/** Device memory, streams and captures travel as plain addresses. */
export type NativeValue = number | bigint | null | TypedArray | Float64Array | Uint8Array

export interface NativeCall {
  (...values: NativeValue[]): number | bigint | string | null
  /** Runs on a thread of libuv, so the JavaScript thread stays free. */
  async(...valuesAndCallback: unknown[]): void
}

export interface NativeCalls {
  readonly call: (name: string) => NativeCall
  /** Text of the last failure on this thread. */
  lastError(): string
}

/** Each exported function's C prototype, streams and captures as void pointers. */
export function prototypes(header: string): ReadonlyMap<string, string> {
  const code = header.replace(/\/\/.*$/gm, '').replace(/arbor_(stream|capture) \*/g, 'void *')
  const found = [...code.matchAll(/^ARBOR_API\s+([^;]+?(\w+)\([^;]*\));/gm)]
  return new Map(found.map(([, prototype, name]) => [name!, prototype!.replace(/\s+/g, ' ')]))
}

/** Throws BackendError when the file can't be loaded or lacks a function of the contract. */
export function loadNative(path: string): NativeCalls {
  const declared = prototypes(readFileSync(join(packageRoot(), 'kernels', 'arbor_ops.h'), 'utf8'))
  try {
    const library = koffi.load(path)
    const calls = new Map([...declared].map(([name, prototype]) => [name, library.func(prototype) as unknown as NativeCall]))
    const call = (name: string): NativeCall => {
      const found = calls.get(name)
      if (!found) throw new BackendError(`arbor_ops.h has no function ${name}.`, { op: name })
      return found
    }
    return { call, lastError: () => String(call('arbor_last_error')()) }
  } catch (cause) {
    throw new BackendError(`The native library ${path} can't be loaded: ${(cause as Error).message}`, { op: 'load', cause })
  }
}

const OUT_OF_MEMORY = -2 // arbor_code

/** What a call answered that failed, as an error; an allocation answers null and has no other reason than memory while the device is well. */
export function nativeError(text: string, op: string, answer: number | bigint | string | null): BackendError {
  const memory = Number(answer ?? 0) === OUT_OF_MEMORY || (op === 'alloc' && / memory /.test(text))
  return memory ? new OutOfMemoryError(text, { op }) : new BackendError(text, { op })
}
