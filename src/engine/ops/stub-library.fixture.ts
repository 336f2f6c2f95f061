// A native library that computes nothing and fails where it is told, and a machine with a GPU as its programs tell it: what an NVIDIA
// driver says can be tried without one.

import { execFileSync } from 'node:child_process'
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { packageRoot } from '../package-root'
import { prototypes } from './native-library'

export interface Failure {
  /** 'arbor_fill' */
  readonly at: string
  readonly text: string
}

/** A ticket, and two GPUs. */
const ANSWERS: Readonly<Record<string, number>> = { arbor_download: 1, arbor_device_count: 2 }

/** What it was asked for since it was loaded, by two functions that the contract doesn't have. */
export const STUB_COUNTERS = ['double stub_calls()', 'double stub_uploaded_bytes()'] as const

/** Compiles it; without a failure everything succeeds. `answers` go before those above. */
export function stubLibrary(failure: Failure | null = null, answers: Readonly<Record<string, number>> = {}): string {
  const bodyOf = (name: string, prototype: string) => {
    const fails = name === failure?.at
    if (prototype.startsWith('const char *')) return `return ${JSON.stringify(textOf(name, failure))};`
    if (prototype.startsWith('void *')) return `return ${fails ? '0' : '(void *)64'};`
    const answer = fails ? -4 : (answers[name] ?? ANSWERS[name] ?? 0)
    return `calls++; ${name === 'arbor_upload' ? 'uploaded += bytes; ' : ''}return ${answer};`
  }
  const counters = [`${STUB_COUNTERS[0]} { return calls; }`, `${STUB_COUNTERS[1]} { return uploaded; }`]
  const before = `#include <stdint.h>\nstatic double calls, uploaded;\nextern "C" {\n${counters.join('\n')}\n}`
  return compileLibrary(before, bodyOf)
}

/** Compiles a library of C++: `before`, then the contract's functions, each with its body. */
export function compileLibrary(before: string, bodyOf: (name: string, prototype: string) => string): string {
  const folder = mkdtempSync(join(tmpdir(), 'arbor-stub-'))
  const header = readFileSync(join(packageRoot(), 'kernels', 'arbor_ops.h'), 'utf8')
  const functions = [...prototypes(header)].map(([name, prototype]) => `${prototype} { ${bodyOf(name, prototype)} }`)
  const source = join(folder, 'stub.cpp')
  writeFileSync(source, `${before}\nextern "C" {\n${functions.join('\n')}\n}\n`)
  const path = join(folder, 'libarbor_cuda.so')
  execFileSync('c++', ['-O2', '-shared', '-fPIC', '-w', '-o', path, source])
  return path
}

function textOf(name: string, failure: Failure | null): string {
  if (name === 'arbor_last_error') return failure ? `${failure.at}: ${failure.text}` : ''
  return 'a GPU of the tests'
}

export interface FakeMachine {
  /** 'NVIDIA H200, 560.35.03, 9.0, 143771, 143000'; null: no driver. An error of nvidia-smi's begins with 'error: '. */
  readonly gpu: string | null
  /** '4711, python3, 61440' */
  readonly processes?: readonly string[]
  /** '12.4' */
  readonly nvcc?: string
}

/** A folder for PATH: programs that answer so, and no others of their names. */
export function fakeMachine({ gpu, processes = [], nvcc }: FakeMachine): string {
  const folder = mkdtempSync(join(tmpdir(), 'arbor-machine-'))
  mkdirSync(folder, { recursive: true })
  const program = (name: string, script: string) => {
    writeFileSync(join(folder, name), `#!/bin/sh\n${script}\n`)
    chmodSync(join(folder, name), 0o755)
  }
  const error = gpu?.startsWith('error: ') ? gpu.slice(7) : null
  const answer = error === null ? `echo '${gpu}'` : `echo '${error}'; exit 9`
  if (gpu !== null) program('nvidia-smi', `case "$1" in *compute-apps*) ${echoes(processes)} ;; *) ${answer} ;; esac`)
  if (nvcc !== undefined) program('nvcc', `echo 'Cuda compilation tools, release ${nvcc}, V${nvcc}.131'`)
  return folder
}

function echoes(lines: readonly string[]): string {
  return lines.length === 0 ? 'true' : lines.map((line) => `echo '${line}'`).join('; ')
}
