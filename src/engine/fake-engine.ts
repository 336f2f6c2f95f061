// An engine without a model, for tests of what stands on an engine: answers come from a script, everything is deterministic,
// and a logprob is a function of (policy version, token, place), so what was sampled agrees with what training sees.

import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setImmediate as turn } from 'node:timers/promises'
import { ArborError } from '../errors'
import type {
  Completion,
  Engine,
  EngineStatus,
  GenerateControl,
  GenerateRequest,
  ModelInfo,
  ModelSource,
  PolicySpec,
  StepConfig,
  TokenStats,
  TrainLoss,
  TrainSequence,
  TrainStats,
} from './engine'
import { hasToken, type TokenMask, uniform } from './sampling'

/** The tokens a request's completion `index` would have without a limit. */
export type FakeScript = (request: GenerateRequest, index: number) => readonly number[]

export interface FakeEngineOptions {
  readonly script?: FakeScript
  /** Default: bytes (0 to 255) and two special tokens; 257 ends a text. */
  readonly info?: Partial<ModelInfo>
}

export type FakeCall =
  | { readonly method: 'generate'; readonly request: GenerateRequest }
  | { readonly method: 'logprobs'; readonly policy: string | null; readonly sequences: readonly TrainSequence[] }
  | {
      readonly method: 'trainStep'
      readonly policy: string
      readonly sequences: readonly TrainSequence[]
      readonly dLogprobs: Float32Array
      readonly config: StepConfig
    }
  | { readonly method: 'openPolicy'; readonly policy: string; readonly spec: PolicySpec }
  | { readonly method: 'openSaved'; readonly policy: string; readonly dir: string }
  | { readonly method: 'savePolicy' | 'closePolicy'; readonly policy: string }

const END = 257
const SAVED = 'fake-policy.json'

export class FakeEngine implements Engine {
  /** All calls that did something, in order. */
  readonly calls: FakeCall[] = []
  readonly #versions = new Map<string, number>()
  readonly #script: FakeScript
  readonly #info: Partial<ModelInfo>
  readonly #work = { promptTokens: 0, sampledTokens: 0, trainedTokens: 0 }
  #running = 0

  constructor({ script = letters, info = {} }: FakeEngineOptions = {}) {
    this.#script = script
    this.#info = info
  }

  async load(source: ModelSource): Promise<ModelInfo> {
    const size = { parameters: 1, contextLength: 2048, vocab: 258, layers: 1, hidden: 1 }
    const device = { device: 'fake', deviceDescription: 'no device', dtype: 'f32' } as const
    return { name: source.name, architecture: 'fake', ...size, ...device, eosTokenIds: [END], ...this.#info }
  }

  async openPolicy(name: string, spec: PolicySpec): Promise<{ policyVersion: number; parameters: number }> {
    this.calls.push({ method: 'openPolicy', policy: name, spec })
    const policyVersion = spec.checkpoint && !spec.freshOptimizer ? readVersion(spec.checkpoint) : 0
    this.#versions.set(name, policyVersion)
    return { policyVersion, parameters: 1 }
  }

  async openSaved(name: string, dir: string): Promise<{ policyVersion: number; parameters: number }> {
    this.calls.push({ method: 'openSaved', policy: name, dir })
    const policyVersion = readVersion(dir)
    this.#versions.set(name, policyVersion)
    return { policyVersion, parameters: 1 }
  }

  async generate(request: GenerateRequest, control: GenerateControl = {}): Promise<Completion[]> {
    this.calls.push({ method: 'generate', request })
    this.#running += request.seeds.length
    this.#work.promptTokens += request.prompt.length
    try {
      return await Promise.all(request.seeds.map((_, index) => this.#complete(request, index, control)))
    } finally {
      this.#running -= request.seeds.length
    }
  }

  async logprobs(policy: string | null, sequences: readonly TrainSequence[]): Promise<TokenStats[]> {
    this.calls.push({ method: 'logprobs', policy, sequences })
    return this.#stats(policy, sequences)
  }

  /** Calls the loss where it is a function, changes nothing but the version. gradNorm is the norm of what the loss answered. */
  async trainStep(policy: string, sequences: readonly TrainSequence[], loss: TrainLoss, config: StepConfig): Promise<TrainStats> {
    const stats = this.#stats(policy, sequences)
    const logprobs = Float32Array.from(stats.flatMap((one) => [...one.logprobs]))
    const entropies = Float32Array.from(stats.flatMap((one) => [...one.entropies]))
    const linear = typeof loss !== 'function'
    const { dLogprobs } = linear ? loss : await loss(logprobs, entropies)
    const objective = logprobs.reduce((sum, value, i) => sum + value * dLogprobs[i]!, 0)
    this.calls.push({ method: 'trainStep', policy, sequences, dLogprobs, config })
    const policyVersion = this.#version(policy) + 1
    this.#versions.set(policy, policyVersion)
    const tokens = sequences.reduce((sum, { prompt, completion }) => sum + prompt.length + completion.length, 0)
    this.#work.trainedTokens += tokens
    return {
      policyVersion,
      gradNorm: Math.hypot(...dLogprobs),
      tokens,
      tokensUnshared: tokens,
      packs: 1,
      seconds: 0,
      ...(linear && { objective, logprobs, entropies }),
    }
  }

  async savePolicy(name: string, dir: string): Promise<void> {
    this.calls.push({ method: 'savePolicy', policy: name })
    mkdirSync(dir, { recursive: true })
    writeFileSync(join(dir, SAVED), JSON.stringify({ policyVersion: this.#version(name) }))
  }

  async closePolicy(name: string): Promise<void> {
    this.calls.push({ method: 'closePolicy', policy: name })
    this.#version(name)
    this.#versions.delete(name)
  }

  async status(): Promise<EngineStatus> {
    const policies = [...this.#versions].map(([name, policyVersion]) => ({ name, policyVersion }))
    return {
      running: this.#running,
      waiting: 0,
      cachedTokens: 0,
      busySeconds: 0,
      work: { ...this.#work },
      deviceMemory: null,
      policies,
      policiesAtOnce: 0,
    }
  }

  async close(): Promise<void> {
    this.#versions.clear()
  }

  async #complete(request: GenerateRequest, index: number, control: GenerateControl): Promise<Completion> {
    const { signal, onTokens, allowedTokens } = control
    const policyVersion = this.#version(request.policy)
    const tokens: number[] = []
    let finishReason: Completion['finishReason'] | null = null
    const script = this.#script(request, index)
    const length = allowedTokens ? request.maxNewTokens : Math.min(script.length, request.maxNewTokens)
    for (let i = 0; i < length; i++) {
      await turn()
      if (signal?.aborted) finishReason = 'abort'
      if (finishReason) break
      const mask = (await allowedTokens?.(index, tokens)) ?? null
      const token = mask ? nearestAllowed(mask, script[i], request.seeds[index]! + 7919 * i) : script[i]!
      tokens.push(token)
      this.#work.sampledTokens++
      if (onTokens?.(index, tokens) === 'stop' || request.stopTokenIds.includes(token)) finishReason = 'stop'
    }
    const logprobs = tokens.map((token, place) => fakeLogprob(policyVersion, token, place))
    const topLogprobs = tokens.map((token, place) => [{ token, logprob: logprobs[place]! }])
    const alternatives = request.topLogprobs ? { topLogprobs } : {}
    const ended = { finishReason: finishReason ?? ('length' as const), policyVersion, cachedTokens: 0 }
    return { tokens, logprobs, plainLogprobs: logprobs, ...alternatives, ...ended }
  }

  #stats(policy: string | null, sequences: readonly TrainSequence[]): TokenStats[] {
    const version = this.#version(policy)
    return sequences.map(({ completion }) => ({
      logprobs: Float32Array.from(completion, (token, place) => fakeLogprob(version, token, place)),
      entropies: new Float32Array(completion.length).fill(1),
    }))
  }

  /** Policy null, the base, is always version 0. */
  #version(policy: string | null): number {
    const version = policy === null ? 0 : this.#versions.get(policy)
    if (version === undefined) throw new ArborError(`There is no policy "${policy}".`, { code: 'unknown_policy' })
    return version
  }
}

/** Between -2.1 and -0.1. */
function fakeLogprob(version: number, token: number, place: number): number {
  return Math.fround(-0.1 - ((version * 31 + token * 17 + place * 7) % 50) / 25)
}

/** What the script says if it may come, else any that may, as the number decides: a fake that never heard of a grammar. */
function nearestAllowed(mask: TokenMask, scripted: number | undefined, number: number): number {
  if (scripted !== undefined && hasToken(mask, scripted)) return scripted
  const allowed = Array.from({ length: 32 * mask.length }, (_, token) => token).filter((token) => hasToken(mask, token))
  if (allowed.length === 0) throw new ArborError('No token is allowed.', { code: 'no_token_allowed' })
  return allowed[Math.floor(uniform(number, allowed.length) * allowed.length)]!
}

/** Four to ten lower-case letters that the seed decides, then the end. */
function letters(request: GenerateRequest, index: number): number[] {
  const seed = Math.abs(request.seeds[index]!)
  return [...Array.from({ length: 4 + (seed % 7) }, (_, i) => 97 + ((seed + 3 * i) % 26)), END]
}

function readVersion(dir: string): number {
  return (JSON.parse(readFileSync(join(dir, SAVED), 'utf8')) as { policyVersion: number }).policyVersion
}
