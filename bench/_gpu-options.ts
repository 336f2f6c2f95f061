// The flags of bench/gpu.

import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { packageRoot } from '../src/engine/package-root'
import type { PrecisionWish } from '../src/engine/precision'
import { OptionError } from '../src/errors'
import { PARTS, type Part, type Workload, workloads } from './_gpu-work'

export const help = `Usage: npm run bench -- gpu [options]

Prints every row of the table of marks: rollouts, training step, whole step through a server, GPU memory, eight adapters together, the gap between
the sampler's and the trainer's logprobs; models with random weights at the shapes of Qwen2.5-1.5B and 7B and of SmolLM2-135M.

  --model NAMES      of 1.5b, 7b, 135m, 135m-64x8, tiny (default: all but tiny); --shape is the same
  --only PARTS       of ${PARTS.join(', ')} (default: those that the model's rows ask for)
  --repeat N         repetitions, interleaved (default 5)    --warmup N   rounds before them (default 3)
  --device D         cuda (default), cpu, …                  --precision P   bf16 (default on cuda), f32, auto
  --groups --rollouts --prompt --common --new N   another step than the row's own
  --pack-tokens N    rows of a training pass at most (default: what the engine chooses)
  --peers            transformers + peft beside us, where python3 has them     --peer-limit SECONDS   for rollouts, and for training (default 150)
  --server-entry F   what "node F serve …" starts for the row through the server (default: dist/src/cli/main.js, else this file)
  --json FILE        the last line, as a file`

export interface GpuOptions {
  readonly workloads: readonly Workload[]
  readonly parts: (workload: Workload) => readonly Part[]
  readonly repeat: number
  readonly warmUp: number
  readonly device: 'cuda' | 'cpu' | 'tfjs' | 'auto'
  readonly precision: PrecisionWish
  readonly packTokens: number | undefined
  readonly peers: boolean
  readonly peerLimit: number
  readonly serverEntry: string
  readonly json: string | undefined
}

/** Null when only the help was asked for. */
export function gpuOptions(self: string): GpuOptions | null {
  const text = { type: 'string' } as const
  const flag = { type: 'boolean', default: false } as const
  const plain = { model: text, shape: text, only: text, repeat: text, warmup: text, device: text, precision: text, json: text }
  const { values } = parseArgs({
    options: {
      ...plain,
      ...SIZES,
      peers: flag,
      'peer-limit': text,
      'server-entry': text,
      'pack-tokens': text,
      help: { ...flag, short: 'h' },
    },
  })
  if (values.help) return null
  const only = values.only?.split(',').map(partOf)
  const device = (values.device ?? 'cuda') as GpuOptions['device'] // openBackend refuses others
  const compiled = join(packageRoot(), 'dist', 'src', 'cli', 'main.js')
  return {
    workloads: workloads(values.model ?? values.shape ?? '', sizesOf(values)),
    parts: (workload) => only ?? workload.parts,
    repeat: whole('repeat', values.repeat ?? '5'),
    warmUp: whole('warmup', values.warmup ?? '3'),
    device,
    precision: (values.precision ?? (device === 'cuda' ? 'bf16' : 'auto')) as PrecisionWish,
    packTokens: values['pack-tokens'] === undefined ? undefined : whole('pack-tokens', values['pack-tokens']),
    peers: values.peers!,
    peerLimit: whole('peer-limit', values['peer-limit'] ?? '150'),
    serverEntry: values['server-entry'] ?? (existsSync(compiled) ? compiled : self),
    json: values.json,
  }
}

const PASSES = ['prefill', 'decode', 'train'] as const

/** Flags of bench/gpu-profile. */
export function profileOptions() {
  const text = { type: 'string' } as const
  const plain = { model: text, shape: text, only: text, repeat: text, device: text, precision: text, json: text }
  const smaller = { layers: text, vocab: text, jobs: text, pairs: { type: 'boolean', default: false } } as const
  const { values } = parseArgs({ options: { ...plain, ...smaller, ...SIZES } })
  const shape = {
    ...(values.layers !== undefined && { num_hidden_layers: whole('layers', values.layers) }),
    ...(values.vocab !== undefined && { vocab_size: whole('vocab', values.vocab) }),
  }
  const device = (values.device ?? 'cuda') as GpuOptions['device']
  const precision = (values.precision ?? (device === 'cuda' ? 'bf16' : 'auto')) as PrecisionWish
  const parts: readonly string[] = values.only?.split(',') ?? PASSES
  const stranger = parts.find((part) => !PASSES.some((pass) => pass === part))
  if (stranger !== undefined) throw new OptionError(`--only ${stranger}: choose of ${PASSES.join(', ')}.`)
  return {
    workloads: workloads(values.model ?? values.shape ?? '1.5b', sizesOf(values), shape),
    parts,
    jobs: whole('jobs', values.jobs ?? '1'),
    pairs: values.pairs!,
    repeat: whole('repeat', values.repeat ?? '20'),
    device,
    precision,
    json: values.json,
  }
}

const SIZES = {
  groups: { type: 'string' },
  rollouts: { type: 'string' },
  prompt: { type: 'string' },
  common: { type: 'string' },
  new: { type: 'string' },
} as const

function sizesOf({
  groups,
  rollouts,
  prompt,
  common,
  new: fresh,
}: { readonly [name in keyof typeof SIZES]?: string | undefined }) {
  const given = Object.entries({ groups, rollouts, prompt, common, fresh }).filter(([, value]) => value !== undefined)
  return Object.fromEntries(given.map(([name, value]) => [name, whole(name, value!)]))
}

function partOf(name: string): Part {
  const found = PARTS.find((part) => part === name)
  if (!found) throw new OptionError(`--only ${name}: choose of ${PARTS.join(', ')}.`)
  return found
}

function whole(name: string, value: string): number {
  const number = Number(value)
  if (!Number.isInteger(number) || number < 0) throw new OptionError(`--${name} ${value}: a whole number is needed.`)
  return number
}
