// llama.cpp's own batched benchmark (tools/batched-bench) as a peer for rollouts: ARBOR_LLAMA_CPP names the folder that holds
// llama-batched-bench and llama-quantize. Random or real weights make no difference to speed; it reads the model that we read.

import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { arborHome } from '../src/engine/arbor-home'
import type { Shape } from './_engine'

export type LlamaCppType = 'F32' | 'BF16' | 'Q4_1'

export interface LlamaCppBench {
  /** Seconds of one run: the prompt, computed once for all sequences (kinder than a step, whose groups ask eight), then the new tokens. */
  round(): number
  readonly description: string
}

/** Null when ARBOR_LLAMA_CPP names no build of llama.cpp. `gguf` is the model; another `type` than its own is made once, beside the cache. */
export function llamaCppBench(gguf: string, type: LlamaCppType, shape: Shape): LlamaCppBench | null {
  const folder = process.env.ARBOR_LLAMA_CPP
  if (!folder || !existsSync(join(folder, 'llama-batched-bench'))) return null
  const model = type === 'Q4_1' ? gguf : requantized(folder, gguf, type)
  const threads = process.env.ARBOR_THREADS ?? '2'
  const sequences = shape.groups * shape.rollouts
  const context = Math.ceil((shape.prompt + sequences * shape.fresh) / 256 + 1) * 256
  const sizes = ['-npp', String(shape.prompt), '-ntg', String(shape.fresh), '-npl', String(sequences)]
  const options = ['-m', model, '-c', String(context), '-b', '2048', '-ub', '512', '-t', threads, '-tb', threads, '-pps', '-kvu']
  return {
    description: `llama.cpp batched-bench ${type}, ${sequences} sequences, ${threads} threads, -pps -kvu (one prompt for all)`,
    round: () => secondsOf(join(folder, 'llama-batched-bench'), [...options, ...sizes, '--output-format', 'jsonl']),
  }
}

function secondsOf(program: string, options: readonly string[]): number {
  const output = execFileSync(program, options, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] })
  const line = output.split('\n').find((text) => text.startsWith('{'))
  if (!line) throw new Error(`llama-batched-bench printed no result: ${output.slice(-400)}`)
  const { t_pp: prompt, t_tg: generation } = JSON.parse(line) as { t_pp: number; t_tg: number }
  return prompt + generation
}

function requantized(folder: string, gguf: string, type: LlamaCppType): string {
  const cache = join(arborHome(), 'bench')
  const to = join(cache, `smollm2-135m.${type}.gguf`)
  if (existsSync(to)) return to
  mkdirSync(cache, { recursive: true })
  execFileSync(join(folder, 'llama-quantize'), ['--allow-requantize', gguf, to, type], { stdio: 'ignore' })
  return to
}
