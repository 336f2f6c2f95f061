// Two differences between a GGUF file and a Hugging Face folder: the tensors' names, and for the llama architecture the order of rows
// in q and k. Both directions stand here, side by side.

const LAYER_NAMES: Readonly<Record<string, string>> = {
  attn_norm: 'input_layernorm',
  ffn_norm: 'post_attention_layernorm',
  attn_q: 'self_attn.q_proj',
  attn_k: 'self_attn.k_proj',
  attn_v: 'self_attn.v_proj',
  attn_output: 'self_attn.o_proj',
  ffn_gate: 'mlp.gate_proj',
  ffn_up: 'mlp.up_proj',
  ffn_down: 'mlp.down_proj',
}
const OUTER_NAMES: Readonly<Record<string, string>> = {
  token_embd: 'model.embed_tokens',
  output_norm: 'model.norm',
  output: 'lm_head',
}
/** What each pair's frequency is divided by; a table of the model, not a weight. */
export const ROPE_DIVISORS = 'rope_freqs.weight'

const LAYER_NAMES_BACK = reversed(LAYER_NAMES)
const OUTER_NAMES_BACK = reversed(OUTER_NAMES)

/** 'blk.3.attn_q.weight' → 'model.layers.3.self_attn.q_proj.weight'. A tensor that we have no name for keeps its own. */
export function huggingFaceName(name: string): string {
  const layer = /^blk\.(\d+)\.(\w+)\.(weight|bias)$/.exec(name)
  if (layer && LAYER_NAMES[layer[2]!]) return `model.layers.${layer[1]}.${LAYER_NAMES[layer[2]!]}.${layer[3]}`
  const outer = /^(\w+)\.(weight|bias)$/.exec(name)
  if (outer && OUTER_NAMES[outer[1]!]) return `${OUTER_NAMES[outer[1]!]}.${outer[2]}`
  return name
}

/** The way back; null for a name that GGUF has none for. */
export function ggufName(name: string): string | null {
  const layer = /^model\.layers\.(\d+)\.([\w.]+)\.(weight|bias)$/.exec(name)
  if (layer) return LAYER_NAMES_BACK[layer[2]!] ? `blk.${layer[1]}.${LAYER_NAMES_BACK[layer[2]!]}.${layer[3]}` : null
  const outer = /^([\w.]+)\.(weight|bias)$/.exec(name)
  return outer && OUTER_NAMES_BACK[outer[1]!] ? `${OUTER_NAMES_BACK[outer[1]!]}.${outer[2]}` : null
}

/**
 * llama.cpp rotates neighbouring pairs, so its converter reorders the rows of q and k of the llama architecture.
 * @param rawName the tensor's name in GGUF
 * @param heads null for architectures whose rows stay
 * @returns the heads of this tensor, 0 where nothing is reordered
 */
export function interleavedHeads(rawName: string, heads: { readonly heads: number; readonly kvHeads: number } | null): number {
  const kind = heads && /\.attn_([qk])\.(?:weight|bias)$/.exec(rawName)?.[1]
  if (!kind) return 0
  return kind === 'q' ? heads.heads : heads.kvHeads
}

/** Row (head, pair j, side s) goes back to (head, s * headDim/2 + j), where Hugging Face rotates the halves of a head. */
export function halvesFromPairs(values: Float32Array, shape: readonly number[], heads: number): Float32Array {
  return reorder(values, shape, heads, 'halves')
}

/** The way back, for writing. */
export function pairsFromHalves(values: Float32Array, shape: readonly number[], heads: number): Float32Array {
  return reorder(values, shape, heads, 'pairs')
}

function reorder(values: Float32Array, shape: readonly number[], heads: number, to: 'halves' | 'pairs'): Float32Array {
  const rows = shape[0]!
  const width = values.length / rows
  const headDim = rows / heads
  const out = new Float32Array(values.length)
  for (let row = 0; row < rows; row++) {
    const inHead = row % headDim
    const half = row - inHead + (inHead % 2) * (headDim / 2) + (inHead >> 1)
    const [from, target] = to === 'halves' ? [row, half] : [half, row]
    out.set(values.subarray(from * width, (from + 1) * width), target * width)
  }
  return out
}

function reversed(names: Readonly<Record<string, string>>): Readonly<Record<string, string>> {
  return Object.fromEntries(Object.entries(names).map(([key, value]) => [value, key]))
}
