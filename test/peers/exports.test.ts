// A policy trained by our server, in other programs' hands: peft loads its adapter and we load peft's, transformers loads the merged
// folder, llama.cpp the GGUF files. Logits are those of the policy, and greedy answers are the server's.

import { execFile } from 'node:child_process'
import { existsSync, readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { LocalEngine } from '../../src/engine/local-engine'
import { readSafetensors, type SafetensorsFile } from '../../src/engine/safetensors'
import type { ServerInfo } from '../../src/optimize'
import type { GRPOStatus, Message } from '../../src/protocol'
import { renderChat } from '../../src/server/chat-template'
import { loadTokenizer } from '../../src/server/tokenizer'
import { CLI, freshFolder, serve, whyNot } from '../e2e/tiny'
import { MODEL_NAME, modelFolder, testRows } from './data'
import { has, noPeers, python, SLOW } from './python'

const LENGTH = 32
const folder = freshFolder()
const at = (name: string) => join(folder, name)
let missing: string | null
let server: ServerInfo
let conversations: Message[][]
let served: string[] // the policy's greedy answers, from the server
let prompts: (readonly number[])[]
let sequences: number[][] // prompts with an answer each
const engine = new LocalEngine({ device: 'cpu', precision: 'f32' })

beforeAll(async () => {
  missing = noPeers() ?? (await whyNot())
  if (missing !== null) return
  server = await serve({ model: MODEL_NAME, precision: 'f32', storagePath: at('storage') })
  conversations = (await testRows(6)).map(({ question }) => [{ role: 'user', content: question }])
  const job = await train()
  served = await Promise.all(conversations.map((messages) => greedy(`${job}@best`, messages)))
  const cli = (...args: string[]) =>
    promisify(execFile)(process.execPath, [CLI, 'export', `${job}@best`, '--storage', at('storage'), ...args])
  await cli('--out', at('merged'), '--shard-gb', '0.002')
  await cli('--out', at('adapter'), '--adapter')
  for (const type of ['f32', 'f16', 'q8_0']) await cli('--out', at(`${type}.gguf`), '--dtype', type)
  const tokenizer = await loadTokenizer({ name: MODEL_NAME, kind: 'folder', path: modelFolder() })
  prompts = conversations.map((messages) => tokenizer.encode(renderChat(tokenizer, messages)))
  sequences = prompts.map((prompt, i) => [...prompt, ...tokenizer.encode(served[i]!)])
  await engine.load({ name: MODEL_NAME, kind: 'folder', path: modelFolder() })
  await engine.openSaved('ours', at('adapter'))
}, SLOW)
beforeEach(({ skip }) => skip(missing !== null, missing ?? ''))
afterAll(async () => {
  await Promise.all([server?.close(), engine.close()])
  rmSync(folder, { recursive: true, force: true })
})

async function post<Answer>(path: string, body: object): Promise<Answer> {
  const response = await fetch(new URL(path, server.baseUrl), { method: 'POST', body: JSON.stringify(body) })
  const json = (await response.json()) as Answer
  if (!response.ok) throw new Error(`${path}: ${response.status} ${JSON.stringify(json)}`)
  return json
}

interface Chat {
  readonly id: string
  readonly choices: { readonly index: number; readonly message: { readonly content: string } }[]
}

async function greedy(model: string, messages: Message[]): Promise<string> {
  const { choices } = await post<Chat>('chat/completions', { model, messages, temperature: 0, max_tokens: LENGTH })
  return choices[0]!.message.content
}

/** Three updates towards short answers, at a rate that is felt; the best checkpoint after two. */
async function train(): Promise<string> {
  const lora_config = { r: 8, lora_alpha: 16, target_modules: 'all-linear', lora_dropout: 0 }
  const trainer_config = {
    num_generations: 6,
    learning_rate: 5e-3,
    lr_scheduler_type: 'constant',
    loss_type: 'dapo',
    beta: 0,
    lora_config,
  }
  const { job_id } = await post<GRPOStatus>('fine_tuning/grpo/initialize', { model: MODEL_NAME, trainer_config })
  for (let step = 0; step < 3; step++) {
    const messages = conversations[step]!
    const { id, choices } = await post<Chat>('chat/completions', {
      model: job_id,
      messages,
      n: 6,
      seed: step,
      max_tokens: LENGTH,
    })
    const batch = choices.map(({ index, message }) => ({
      ...{ messages, completion: { role: 'assistant', content: message.content } },
      ...{ reward: -message.content.length - index / 100, completion_id: `${id}#${index}` },
    }))
    const { pending_batch_ids } = await post<GRPOStatus>('fine_tuning/grpo/status', { job_id })
    await post('fine_tuning/grpo/step', { job_id, model: job_id, batch_id: pending_batch_ids[0], batch })
    await post('fine_tuning/grpo/checkpoint', {
      job_id,
      checkpoint_name: `after-${step}`,
      metadata: { score: [10, 30, 20][step] },
    })
  }
  await post('fine_tuning/grpo/terminate', { job_id })
  return job_id
}

function gap(file: SafetensorsFile, name: string, logits: Float32Array): number {
  const theirs = file.read(name)
  expect(theirs).toHaveLength(logits.length)
  return theirs.reduce((largest, value, i) => Math.max(largest, Math.abs(value - logits[i]!)), 0)
}

describe('peft and transformers', () => {
  interface Answer {
    readonly merged: string[]
    readonly adapter: string[]
  }
  let theirs: Answer
  let logits: SafetensorsFile
  beforeAll(async () => {
    if (missing !== null || !has('peft')) return
    const asked = {
      base: modelFolder(),
      merged: at('merged'),
      adapter: at('adapter'),
      written: at('peft'),
      logits: at('logits.safetensors'),
    }
    const stop = [...new Set((await loadTokenizer({ name: MODEL_NAME, kind: 'folder', path: modelFolder() })).eosTokenIds)]
    theirs = await python<Answer>('exports.py', { ...asked, sequences, prompts, stop, length: LENGTH })
    logits = readSafetensors(at('logits.safetensors'))
  }, SLOW)
  beforeEach(({ skip }) => skip(!has('peft'), 'no CPU build of torch in this package index: ARBOR_PEERS_TORCH=1 takes any'))
  afterAll(() => logits?.close())

  it('training moved the policy, so that what follows is no comparison of the base with itself', async () => {
    const [base, ours] = [await engine.logits(null, sequences[0]!), await engine.logits('ours', sequences[0]!)]
    expect(base.reduce((largest, value, i) => Math.max(largest, Math.abs(value - ours[i]!)), 0)).toBeGreaterThan(1)
  })

  it("peft loads our adapter, by the base's path in it too: the policy's logits within 1e-3", async () => {
    expect(readdirSync(at('adapter')).sort()).toEqual(['adapter_config.json', 'adapter_model.safetensors'])
    for (const [i, tokens] of sequences.entries()) {
      const ours = await engine.logits('ours', tokens)
      for (const name of ['adapter', 'named']) expect(gap(logits, `${name}.${i}`, ours)).toBeLessThan(1e-3)
    }
    expect(theirs.adapter).toEqual(served)
  })

  it("we load the adapter that peft wrote: peft's logits within 1e-3", async () => {
    await engine.openSaved('peft', at('peft'))
    for (const [i, tokens] of sequences.entries())
      expect(gap(logits, `written.${i}`, await engine.logits('peft', tokens))).toBeLessThan(1e-3)
    expect(gap(logits, 'adapter.0', await engine.logits('peft', sequences[0]!))).toBeGreaterThan(1)
  })

  it("transformers loads the merged folder, in shards: the policy's logits within 1e-3, the server's greedy text", async () => {
    expect(existsSync(join(at('merged'), 'model.safetensors.index.json'))).toBe(true)
    for (const [i, tokens] of sequences.entries())
      expect(gap(logits, `merged.${i}`, await engine.logits('ours', tokens))).toBeLessThan(1e-3)
    expect(theirs.merged).toEqual(served)
  })
})

describe('llama.cpp', () => {
  type Answers = Record<'f32' | 'f16' | 'q8_0', { texts: string[]; prompt_tokens: number[]; logprobs: number[][] }>
  let theirs: Answers
  beforeAll(async () => {
    if (missing !== null || !has('xllamacpp')) return
    const files = Object.fromEntries(['f32', 'f16', 'q8_0'].map((type) => [type, at(`${type}.gguf`)]))
    theirs = await python<Answers>('llama.py', { files, conversations, length: LENGTH })
  }, SLOW)
  beforeEach(({ skip }) => skip(!has('xllamacpp'), 'no wheel of llama.cpp for this machine'))

  it("gives the server's greedy text, by the file's own template and tokenizer", () => {
    expect(theirs.f32.texts).toEqual(served)
    expect(theirs.f16.texts).toEqual(served)
    expect(theirs.f32.prompt_tokens).toEqual(prompts.map((prompt) => prompt.length))
  })

  it("gives every token of the answers the policy's logprob, within 2e-4 in f32", async () => {
    for (const [i, logprobs] of theirs.f32.logprobs.entries()) {
      const completion = sequences[i]!.slice(prompts[i]!.length)
      const [ours] = await engine.logprobs('ours', [{ prompt: prompts[i]!, completion }], { temperature: 1 })
      const gaps = [...ours!.logprobs].map((value, t) => Math.abs(value - logprobs[t]!))
      expect(Math.max(...gaps)).toBeLessThan(2e-4)
    }
  })

  it('reads the quantized file: its logprobs of the same answers are near', () => {
    const same = theirs.q8_0.texts.flatMap((text, i) => (text === served[i] ? [i] : []))
    expect(same.length).toBeGreaterThanOrEqual(3)
    for (const i of same)
      for (const [t, logprob] of theirs.q8_0.logprobs[i]!.entries())
        expect(Math.abs(logprob - theirs.f32.logprobs[i]![t]!)).toBeLessThan(0.5)
  })
})
