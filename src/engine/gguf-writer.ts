// Writing a GGUF file, tensor by tensor: the model's own metadata from its configuration, the tokenizer's from whoever knows text.
// Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md

import { closeSync, fsyncSync, openSync, rmSync, writeSync } from 'node:fs'
import { type GGUFTypedMetadata, GGUFValueType, serializeGgufMetadata } from '@huggingface/gguf'
import { ModelError } from '../errors'
import { ENCODINGS, type GgufType, typeFor } from './gguf-encode'
import { ggufName, interleavedHeads, pairsFromHalves, ROPE_DIVISORS } from './gguf-names'
import type { ModelConfig } from './model-config'
import { ropeFrequencies } from './rope'
import type { OpenModel } from './weights'

const ALIGNMENT = 32

export type GgufEntry = { readonly type: GGUFValueType; readonly subType?: GGUFValueType; readonly value: unknown }

/** A metadata value, with the type that readers expect of it. */
export const entry = {
  text: (value: string): GgufEntry => ({ type: GGUFValueType.STRING, value }),
  count: (value: number): GgufEntry => ({ type: GGUFValueType.UINT32, value }),
  real: (value: number): GgufEntry => ({ type: GGUFValueType.FLOAT32, value }),
  flag: (value: boolean): GgufEntry => ({ type: GGUFValueType.BOOL, value }),
  texts: (value: readonly string[]): GgufEntry => ({ type: GGUFValueType.ARRAY, subType: GGUFValueType.STRING, value }),
  counts: (value: readonly number[]): GgufEntry => ({ type: GGUFValueType.ARRAY, subType: GGUFValueType.INT32, value }),
}

/** `weights` holds the model's own and no others, as `openPolicyAsModel` gives them. */
export interface GgufContents extends OpenModel {
  readonly name: string
  /** `tokenizer.…`: what turns text into tokens. */
  readonly vocabulary: Readonly<Record<string, GgufEntry>>
}

/** One tensor of the file, in GGUF's terms. */
interface Plan {
  readonly name: string
  readonly shape: readonly number[]
  readonly values: () => Float32Array
  readonly type: GgufType
  readonly bytes: number
  /** From the start of the tensors' part. */
  readonly offset: number
}

/**
 * Writes the model with its matrices as `type`; vectors are f32. A file cut short by an error is removed.
 * @throws ModelError for a model that a GGUF file of this kind can't describe
 */
export function writeGguf(path: string, contents: GgufContents, type: GgufType): void {
  const plans = planTensors(path, contents, type)
  const header = headerOf(contents, { type, plans })
  const fd = openSync(path, 'w')
  try {
    writeAll(fd, header)
    for (const plan of plans) {
      const data = ENCODINGS[plan.type].encode(plan.values())
      if (data.length !== plan.bytes)
        throw new ModelError(`${path}: tensor "${plan.name}" came out as ${data.length} bytes instead of ${plan.bytes}.`)
      writeAll(fd, data)
      writeAll(fd, new Uint8Array(padded(plan.bytes) - plan.bytes))
    }
    fsyncSync(fd)
  } catch (error) {
    closeSync(fd)
    rmSync(path, { force: true })
    throw error
  }
  closeSync(fd)
}

function planTensors(path: string, { config, weights }: GgufContents, wish: GgufType): Plan[] {
  const divisors = ropeDivisors(config)
  const table = divisors ? [{ name: ROPE_DIVISORS, shape: [divisors.length], values: () => divisors }] : []
  const tensors = weights.names.map((source) => {
    const name = ggufName(source)
    if (name === null) throw new ModelError(`${path}: GGUF has no name for the weight "${source}". Write a model folder.`)
    const shape = weights.shape(source)
    const heads = interleavedHeads(name, config.architecture === 'llama' ? config : null)
    const values = () => (heads === 0 ? weights.read(source) : pairsFromHalves(weights.read(source), shape, heads))
    return { name, shape, values }
  })
  let offset = 0
  return [...table, ...tensors].map((tensor) => {
    const type = typeFor(tensor.shape, wish)
    const { values, bytes: size } = ENCODINGS[type]
    const bytes = (tensor.shape.reduce((a, b) => a * b, 1) / values) * size
    const plan = { ...tensor, type, bytes, offset }
    offset += padded(bytes)
    return plan
  })
}

/** GGUF tells a scaled rope by what each pair's frequency is divided by; null where nothing is scaled. */
function ropeDivisors(config: ModelConfig): Float32Array | null {
  const scaled = ropeFrequencies(config)
  const divisors = ropeFrequencies({ ...config, ropeScaling: null }).map((plain, i) => plain / scaled[i]!)
  return divisors.every((divisor) => divisor === 1) ? null : divisors
}

function headerOf(contents: GgufContents, { type, plans }: { type: GgufType; plans: readonly Plan[] }): Uint8Array {
  const { name, config, vocabulary } = contents
  const metadata = {
    version: { type: GGUFValueType.UINT32, value: 3 },
    tensor_count: { type: GGUFValueType.UINT64, value: BigInt(plans.length) },
    kv_count: { type: GGUFValueType.UINT64, value: 0n }, // counted by the writer
    'general.architecture': entry.text(config.architecture),
    'general.name': entry.text(name),
    'general.file_type': entry.count(ENCODINGS[type].fileType),
    'general.quantization_version': entry.count(2),
    ...modelEntries(config),
    ...vocabulary,
  }
  // Padding belongs behind the list of tensors, so none is asked for here.
  const head = serializeGgufMetadata(metadata as unknown as GGUFTypedMetadata, { alignment: 1 })
  const parts = [head, ...plans.map(tensorInfo)]
  const length = parts.reduce((sum, part) => sum + part.length, 0)
  return Buffer.concat(parts, padded(length)) // Buffer.concat fills up with zeros
}

function modelEntries(config: ModelConfig): Record<string, GgufEntry> {
  const own: Record<string, GgufEntry> = {
    vocab_size: entry.count(config.vocab),
    context_length: entry.count(config.contextLength),
    embedding_length: entry.count(config.hidden),
    block_count: entry.count(config.layers),
    feed_forward_length: entry.count(config.inner),
    'attention.head_count': entry.count(config.heads),
    'attention.head_count_kv': entry.count(config.kvHeads),
    'attention.key_length': entry.count(config.headDim),
    'attention.value_length': entry.count(config.headDim),
    'attention.layer_norm_rms_epsilon': entry.real(config.normEps),
    'rope.dimension_count': entry.count(config.headDim),
    'rope.freq_base': entry.real(config.ropeTheta),
  }
  return Object.fromEntries(Object.entries(own).map(([key, value]) => [`${config.architecture}.${key}`, value]))
}

/** name, dimensions (fastest first), type, offset. */
function tensorInfo({ name, shape, type, offset }: Plan): Uint8Array {
  const text = Buffer.from(name)
  const out = Buffer.alloc(8 + text.length + 4 + 8 * shape.length + 4 + 8)
  let at = out.writeBigUInt64LE(BigInt(text.length), 0)
  at += text.copy(out, at)
  at = out.writeUInt32LE(shape.length, at)
  for (const size of [...shape].reverse()) at = out.writeBigUInt64LE(BigInt(size), at)
  at = out.writeUInt32LE(ENCODINGS[type].id, at)
  out.writeBigUInt64LE(BigInt(offset), at)
  return out
}

function padded(bytes: number): number {
  return Math.ceil(bytes / ALIGNMENT) * ALIGNMENT
}

function writeAll(fd: number, bytes: Uint8Array): void {
  for (let done = 0; done < bytes.byteLength; ) done += writeSync(fd, bytes, done, Math.min(1 << 30, bytes.byteLength - done))
}
