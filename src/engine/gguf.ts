// Reading a GGUF file: metadata through @huggingface/gguf, tensors dequantized to f32, and all names turned into Hugging Face's.
// Format and block layouts: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md and ggml-quants.c.

import { GGMLQuantizationType, gguf } from '@huggingface/gguf'
import { ModelError } from '../errors'
import { bf16ToFloat32, FileReader, f16ToFloat32, halfValues } from './file-reader'
import { halvesFromPairs, huggingFaceName, interleavedHeads, ROPE_DIVISORS } from './gguf-names'
import type { WeightFile } from './weights'

/** Metadata values as GGUF gives them: numbers, strings, booleans and lists of these (64-bit integers as numbers). */
export type GgufMetadata = Readonly<Record<string, unknown>>

export interface GgufFile {
  readonly metadata: GgufMetadata
  readonly weights: WeightFile
}

interface Entry {
  readonly rawName: string
  readonly type: number
  readonly shape: readonly number[] // Hugging Face's order: slowest dimension first
  readonly offset: number // from the start of the file
}

/** How a type is stored: blocks of `values` values in `bytes` bytes, and what turns them into f32. */
interface Layout {
  readonly values: number
  readonly bytes: number
  readonly decode: (bytes: Uint8Array, count: number) => Float32Array
}

const LAYOUTS: Readonly<Record<number, Layout>> = {
  [GGMLQuantizationType.F32]: { values: 1, bytes: 4, decode: (bytes) => new Float32Array(bytes.buffer) },
  [GGMLQuantizationType.F16]: { values: 1, bytes: 2, decode: (bytes) => f16ToFloat32(new Uint16Array(bytes.buffer)) },
  [GGMLQuantizationType.BF16]: { values: 1, bytes: 2, decode: (bytes) => bf16ToFloat32(new Uint16Array(bytes.buffer)) },
  [GGMLQuantizationType.Q8_0]: { values: 32, bytes: 34, decode: decodeQ8 },
  [GGMLQuantizationType.Q4_0]: { values: 32, bytes: 18, decode: (bytes, count) => decodeQ4(bytes, count, false) },
  [GGMLQuantizationType.Q4_1]: { values: 32, bytes: 20, decode: (bytes, count) => decodeQ4(bytes, count, true) },
}

/** Opens a GGUF file. Throws ModelError when it is no GGUF file or shorter than its header promises. */
export async function openGguf(path: string): Promise<GgufFile> {
  const file = new FileReader(path)
  try {
    const parsed = await parse(path)
    const metadata = parsed.metadata as unknown as GgufMetadata
    const start = Number(parsed.tensorDataOffset)
    const entries = new Map<string, Entry>()
    for (const info of parsed.tensorInfos) {
      const shape = info.shape.map(Number).reverse()
      entries.set(huggingFaceName(info.name), {
        rawName: info.name,
        type: info.dtype,
        shape,
        offset: start + Number(info.offset),
      })
    }
    for (const { type, shape, offset } of entries.values()) {
      const layout = LAYOUTS[type]
      if (layout) file.expectSize(offset + (product(shape) / layout.values) * layout.bytes)
    }
    return { metadata, weights: weightFile(file, entries, metadata) }
  } catch (error) {
    file.close()
    throw error
  }
}

/** The metadata alone, for the tokenizer. */
export async function ggufMetadata(path: string): Promise<GgufMetadata> {
  return (await parse(path)).metadata as unknown as GgufMetadata
}

async function parse(path: string) {
  try {
    return await gguf(path, { allowLocalFile: true })
  } catch (cause) {
    throw new ModelError(`${path}: not a whole GGUF file (${(cause as Error).message}). Delete it and fetch the model again.`, {
      cause,
    })
  }
}

/** What config.json would say, from the metadata. */
export function ggufConfig(file: GgufFile): Record<string, unknown> {
  const { metadata, weights } = file
  const architecture = String(metadata['general.architecture'])
  const value = (key: string): unknown => metadata[`${architecture}.${key}`]
  const eos = ['eos_token_id', 'eot_token_id', 'eom_token_id'].map((key) => metadata[`tokenizer.ggml.${key}`])
  return {
    model_type: architecture,
    vocab_size: weights.shape('model.embed_tokens.weight')[0],
    hidden_size: value('embedding_length'),
    num_hidden_layers: value('block_count'),
    num_attention_heads: value('attention.head_count'),
    num_key_value_heads: value('attention.head_count_kv') ?? value('attention.head_count'),
    head_dim: value('attention.key_length') ?? value('rope.dimension_count') ?? undefined,
    intermediate_size: value('feed_forward_length'),
    max_position_embeddings: value('context_length'),
    rms_norm_eps: Math.fround(Number(value('attention.layer_norm_rms_epsilon') ?? 1e-6)),
    rope_theta: value('rope.freq_base') ?? 10000,
    rope_scaling: ropeScaling(file, architecture),
    tie_word_embeddings: !weights.has('lm_head.weight'),
    attention_bias: weights.has('model.layers.0.self_attn.q_proj.bias'),
    bos_token_id: metadata['tokenizer.ggml.bos_token_id'],
    eos_token_id: [...new Set(eos.filter((id) => typeof id === 'number'))],
  }
}

/** A table of divisors (Llama 3's kind of scaling comes as one), or a factor. */
function ropeScaling({ metadata, weights }: GgufFile, architecture: string): Record<string, unknown> | null {
  if (weights.has(ROPE_DIVISORS)) return { rope_type: 'divisors', divisors: [...weights.read(ROPE_DIVISORS)] }
  const kind = metadata[`${architecture}.rope.scaling.type`]
  if (kind === undefined || kind === 'none') return null
  return { rope_type: kind, factor: metadata[`${architecture}.rope.scaling.factor`] }
}

function weightFile(file: FileReader, entries: ReadonlyMap<string, Entry>, metadata: GgufMetadata): WeightFile {
  const find = (name: string): Entry => {
    const entry = entries.get(name)
    if (!entry) throw new ModelError(`${file.path}: has no tensor "${name}".`)
    return entry
  }
  return {
    names: [...entries.keys()],
    has: (name) => entries.has(name),
    shape: (name) => find(name).shape,
    read: (name) => {
      const entry = find(name)
      const values = readEntry(file, entry)
      const heads = interleavedHeads(entry.rawName, headsOf(metadata))
      return heads === 0 ? values : halvesFromPairs(values, entry.shape, heads)
    },
    close: () => file.close(),
  }
}

function readEntry(file: FileReader, entry: Entry): Float32Array {
  const layout = LAYOUTS[entry.type]
  if (!layout) {
    const supported = Object.keys(LAYOUTS).map((type) => GGMLQuantizationType[Number(type)])
    throw new ModelError(
      `${file.path}: tensor "${entry.rawName}" has type ${GGMLQuantizationType[entry.type] ?? entry.type}. ` +
        `Supported: ${supported.join(', ')}. Take a file of one of these types, or the model's safetensors.`,
    )
  }
  const count = product(entry.shape)
  const bytes = new Uint8Array((count / layout.values) * layout.bytes)
  file.read(bytes, entry.offset)
  return layout.decode(bytes, count)
}

/** Q8_0: an f16 scale, then 32 signed bytes. */
function decodeQ8(bytes: Uint8Array, count: number): Float32Array {
  const half = halfValues()
  const signed = new Int8Array(bytes.buffer)
  const out = new Float32Array(count)
  for (let at = 0, i = 0; i < count; at += 34, i += 32) {
    const scale = half[bytes[at]! | (bytes[at + 1]! << 8)]!
    for (let j = 0; j < 32; j++) out[i + j] = scale * signed[at + 2 + j]!
  }
  return out
}

/** Q4_0 and Q4_1: an f16 scale, (Q4_1: an f16 minimum,) then 16 bytes whose low nibbles are values 0 to 15 and high nibbles 16 to 31. */
function decodeQ4(bytes: Uint8Array, count: number, withMinimum: boolean): Float32Array {
  const half = halfValues()
  const out = new Float32Array(count)
  for (let at = 0, i = 0; i < count; at += 16, i += 32) {
    const scale = half[bytes[at]! | (bytes[at + 1]! << 8)]!
    at += 2
    const minimum = withMinimum ? half[bytes[at]! | (bytes[at + 1]! << 8)]! : 0
    if (withMinimum) at += 2
    const value = (nibble: number) => (withMinimum ? scale * nibble + minimum : scale * (nibble - 8))
    for (let j = 0; j < 16; j++) {
      const byte = bytes[at + j]!
      out[i + j] = value(byte & 15)
      out[i + j + 16] = value(byte >> 4)
    }
  }
  return out
}

/** How many heads q and k have, where the file's architecture reorders their rows; null where it doesn't. */
function headsOf(metadata: GgufMetadata): { heads: number; kvHeads: number } | null {
  if (metadata['general.architecture'] !== 'llama') return null
  const heads = Number(metadata['llama.attention.head_count'])
  return { heads, kvHeads: Number(metadata['llama.attention.head_count_kv'] ?? heads) }
}

function product(shape: readonly number[]): number {
  return shape.reduce((a, b) => a * b, 1)
}
