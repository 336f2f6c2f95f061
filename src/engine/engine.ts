// Tokens in, tokens and logprobs out. The engine knows no text, no HTTP and no GRPO: `trainStep` takes sequences and a function.

/** Where a model's files lie; made by model-source.ts. */
export interface ModelSource {
  readonly name: string
  readonly kind: 'folder' | 'gguf'
  readonly path: string
}

export interface ModelInfo {
  readonly name: string
  readonly architecture: string // 'llama' | 'qwen2'
  readonly parameters: number
  readonly contextLength: number
  readonly vocab: number
  readonly layers: number
  readonly hidden: number
  readonly device: 'cpu' | 'cuda' | 'tfjs' | 'fake'
  readonly deviceDescription: string
  /** Of the frozen weights; what is trained is f32. */
  readonly dtype: 'f32' | 'bf16'
  readonly eosTokenIds: readonly number[]
}

/** Linear layers of a block a LoRA adapter may sit on, in peft's names. */
export const LORA_TARGETS = ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj'] as const
export type LoraTarget = (typeof LORA_TARGETS)[number]

export interface LoraSpec {
  readonly rank: number
  readonly alpha: number
  readonly targets: readonly LoraTarget[]
  /** Kept in the saved config; not applied in RL (it would part sampler and trainer). */
  readonly dropout: number
}

export interface PolicySpec {
  /** Null: all weights are trained; the policy has its own f32 copy of the base, gradients and moments. */
  readonly lora: LoraSpec | null
  /** Seed of A's initial values (B starts at zero, so a fresh policy equals the base). Without LoRA nothing is random. */
  readonly seed: number
  /** Folder written by savePolicy: weights, optimizer state and policy version continue from there, bit for bit. */
  readonly checkpoint?: string
  /** Only the checkpoint's weights: the policy begins at version 0 with an optimizer of its own. */
  readonly freshOptimizer?: boolean
  /** How many GPUs shall train and how many others sample, where the engine has as many as both together; else, and without a wish, all that it has do both. */
  readonly gpus?: GpuSplit
}

export interface GpuSplit {
  readonly training: number
  readonly inference: number
}

export interface OpenedPolicy {
  readonly policyVersion: number
  readonly parameters: number
  /** Of an engine with several GPUs: how many of them train this policy and sample from it; `apart`: they are different ones. */
  readonly gpus?: GpuSplit & { readonly apart: boolean }
}

/** Off values: topK 0, topP 1, minP 0, repetitionPenalty 1. temperature 0 is greedy. */
export interface SamplingParams {
  readonly temperature: number
  readonly topK: number
  readonly topP: number
  readonly minP: number
  readonly repetitionPenalty: number
}

export interface GenerateRequest {
  /** A policy's name; null is the base with LoRA off. */
  readonly policy: string | null
  readonly prompt: readonly number[]
  /** One completion per seed. A completion depends on (weights, prompt, sampling, seed) alone, never on what else is in flight. */
  readonly seeds: readonly number[]
  readonly maxNewTokens: number
  readonly sampling: SamplingParams
  /** Sampling one of these ends the completion; it stays the last token of `tokens`. */
  readonly stopTokenIds: readonly number[]
  /** Alternatives wanted per token (0 to 20). */
  readonly topLogprobs?: number
}

export interface GenerateControl {
  readonly signal?: AbortSignal
  /** Called with all tokens so far of completion `index` after each step; answering 'stop' ends it (it may run a few tokens on). */
  readonly onTokens?: (index: number, tokens: readonly number[]) => 'stop' | undefined
  /**
   * The tokens that completion `index` may take next, as bits (token t: bit t & 31 of word t >> 5); null: all. Asked before each sample, sometimes
   * twice with the same tokens, and answered while the device computes. Stored logprobs stay those over the full vocabulary.
   * An error, or a set without a token, ends the call with that error.
   */
  readonly allowedTokens?: (index: number, tokens: readonly number[]) => Int32Array | null | Promise<Int32Array | null>
}

export interface Completion {
  readonly tokens: readonly number[]
  /** log-softmax(logits / T) over the full vocabulary, before truncation or penalty: the behaviour policy's logprobs. */
  readonly logprobs: readonly number[]
  /** The same at T = 1: what OpenAI's `logprobs` field shows. */
  readonly plainLogprobs: readonly number[]
  /** Per token, most likely first, at T = 1; only with `topLogprobs`. */
  readonly topLogprobs?: readonly (readonly { readonly token: number; readonly logprob: number }[])[]
  readonly finishReason: 'stop' | 'length' | 'abort'
  readonly policyVersion: number
  /** Prompt tokens whose keys and values were found in the prefix cache. */
  readonly cachedTokens: number
}

export interface TrainSequence {
  readonly prompt: readonly number[]
  readonly completion: readonly number[]
}

/** One value per completion token. */
export interface TokenStats {
  readonly logprobs: Float32Array
  readonly entropies: Float32Array
}

/** All sequences' completion tokens one after the other, in the order given. */
export type LossGradient = (
  logprobs: Float32Array,
  entropies: Float32Array,
) => { dLogprobs: Float32Array; dEntropies?: Float32Array } | Promise<{ dLogprobs: Float32Array; dEntropies?: Float32Array }>

/**
 * A loss that is linear in the logprobs, Σ dLogprobs · logprobs, as cross-entropy is (each -1 / tokens): its gradient is known before
 * the logprobs are, so every pack is computed once and forgotten. One value per completion token, as for LossGradient.
 */
export interface LinearLoss {
  readonly dLogprobs: Float32Array
}

export type TrainLoss = LossGradient | LinearLoss

export interface StepConfig {
  readonly temperature: number
  readonly learningRate: number
  readonly beta1: number
  readonly beta2: number
  readonly eps: number
  /** Of matrices; norms and biases don't decay. */
  readonly weightDecay: number
  /** Global norm; 0 = no clipping. */
  readonly maxGradNorm: number
  /** Rows computed together, in tokens; memory only, never changes the result beyond rounding. Default: the engine's own plan. */
  readonly packTokens?: number
}

export interface TrainStats {
  readonly policyVersion: number
  /** Before clipping. */
  readonly gradNorm: number
  /** Σ dLogprobs · logprobs before the update; of a LinearLoss only. */
  readonly objective?: number
  /** Of every completion token before the update, laid out as the loss's arrays; of a LinearLoss only. */
  readonly logprobs?: Float32Array
  readonly entropies?: Float32Array
  /** Tokens computed after sharing prefixes, and what they would have been without. */
  readonly tokens: number
  readonly tokensUnshared: number
  readonly packs: number
  readonly seconds: number
}

export interface EngineStatus {
  readonly running: number
  readonly waiting: number
  readonly cachedTokens: number
  /** Time spent on passes so far, of several GPUs their mean: what is left of a step's time went elsewhere. */
  readonly busySeconds: number
  /** Tokens so far, whoever asked: prompt tokens computed (what was cached is not counted), tokens sampled, tokens of training passes. */
  readonly work: { readonly promptTokens: number; readonly sampledTokens: number; readonly trainedTokens: number }
  /** Bytes of the device's own memory, of several GPUs all together; null where it shares the host's. */
  readonly deviceMemory: { readonly free: number; readonly total: number } | null
  readonly policies: readonly { readonly name: string; readonly policyVersion: number }[]
  /** Most policies (the base is one) that one pass sampled for. */
  readonly policiesAtOnce: number
}

export interface Engine {
  /** The frozen base. */
  load(model: ModelSource): Promise<ModelInfo>
  openPolicy(name: string, spec: PolicySpec): Promise<OpenedPolicy>
  /** What savePolicy or peft wrote, an adapter or all weights, to be asked only: it takes a quarter of the room, and can't be trained or saved. */
  openSaved(name: string, dir: string): Promise<OpenedPolicy>
  generate(request: GenerateRequest, control?: GenerateControl): Promise<Completion[]>
  /** No update; null = base, LoRA off: the KL reference. */
  logprobs(
    policy: string | null,
    sequences: readonly TrainSequence[],
    options: { temperature: number; packTokens?: number },
  ): Promise<TokenStats[]>
  /** One optimizer update; policyVersion + 1; the policy's prefix cache is forgotten. */
  trainStep(policy: string, sequences: readonly TrainSequence[], loss: TrainLoss, config: StepConfig): Promise<TrainStats>
  /**
   * PEFT files (adapter_config.json, adapter_model.safetensors), or for all weights a model folder in f32 (model.safetensors, with
   * config.json and the tokenizer where the base has them); and optimizer.safetensors. Each is written to a temporary name and renamed.
   */
  savePolicy(name: string, dir: string): Promise<void>
  closePolicy(name: string): Promise<void>
  status(): Promise<EngineStatus>
  close(): Promise<void>
}
