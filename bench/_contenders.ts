// The peers that --peers names, as contenders of a round: f32, bf16 (transformers + peft as users run them), each with -shared (the common
// prefix computed once by hand), and for rollouts llama-f32, llama-bf16, llama-q4_1 (llama.cpp's own batched benchmark).

import { resolveModel } from '../src/engine/model-source'
import { OptionError } from '../src/errors'
import type { Shape } from './_engine'
import { type LlamaCppType, llamaCppBench } from './_llama_cpp'
import { type Peer, peerShape, startPeer } from './_peer'

export interface Contender {
  readonly name: string
  readonly note?: string
  readonly run: () => Promise<number>
}

export interface Contenders {
  readonly list: readonly Contender[]
  readonly descriptions: readonly string[]
  close(): void
}

export interface PeersAsked {
  readonly model: string
  readonly shape: Shape
  /** 'f32,bf16-shared,llama-bf16'; empty: none. */
  readonly peers: string
  readonly microBatch: string
}

/** Starts them; each peer's threads and settings stand in `descriptions`. Throws OptionError for a name that is none. */
export async function startContenders(what: 'rollouts' | 'train-step', asked: PeersAsked): Promise<Contenders> {
  const list: Contender[] = []
  const descriptions: string[] = []
  const python: Peer[] = []
  for (const name of asked.peers.split(',').filter(Boolean)) {
    const llama = /^llama-(f32|bf16|q4_1)$/.exec(name)
    const torch = /^(f32|bf16)(-shared)?$/.exec(name)
    if (llama) {
      const bench = llamaCppBench(await ggufOf(asked.model), llama[1]!.toUpperCase() as LlamaCppType, asked.shape)
      if (bench === null)
        throw new OptionError(`--peers ${name}: set ARBOR_LLAMA_CPP to a folder with llama-batched-bench and llama-quantize.`)
      descriptions.push(bench.description)
      list.push({ name: `llama.cpp, ${llama[1]}`, run: async () => bench.round() })
    } else if (torch) {
      const [, dtype, shared] = torch
      const options = ['--dtype', dtype!, '--micro-batch', asked.microBatch, ...(shared ? ['--share'] : [])]
      const peer = await startPeer([...options, ...(await peerShape(asked.model, asked.shape))])
      python.push(peer)
      descriptions.push(peer.description)
      const title =
        what === 'rollouts' ? `transformers generate, ${dtype}` : `transformers + peft, ${dtype}, micro-batch ${asked.microBatch}`
      list.push({ name: shared ? `${title}, prefix shared by hand` : title, run: () => peer.round(what) })
    } else
      throw new OptionError(`--peers takes f32, bf16, f32-shared, bf16-shared, llama-f32, llama-bf16, llama-q4_1; not "${name}".`)
  }
  return { list, descriptions, close: () => stop(python) }
}

async function ggufOf(model: string): Promise<string> {
  const { kind, path } = await resolveModel(model)
  if (kind !== 'gguf') throw new OptionError(`llama.cpp reads GGUF files; ${model} is a folder.`)
  return path
}

function stop(peers: readonly Peer[]): void {
  for (const peer of peers) peer.close()
}
