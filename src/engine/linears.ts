// The four matrix products of a decoder block. Weights that read the same input are fused into one: q, k, v and gate, up.

import type { LoraTarget } from './engine'
import type { ModelConfig } from './model-config'

export const FUSED_LINEARS = ['qkv', 'o', 'gateUp', 'down'] as const
export type FusedLinear = (typeof FUSED_LINEARS)[number]

/** One weight of a fused linear: its name as peft and Hugging Face write it, and its output rows. */
export interface LinearMember {
  readonly target: LoraTarget
  /** 'self_attn.q_proj': what follows 'model.layers.N.' in a checkpoint. */
  readonly path: string
  readonly out: number
}

export interface LinearShape {
  readonly in: number
  readonly out: number
  readonly members: readonly LinearMember[]
}

/** Shapes of a block's linears, members in the order their output rows are stacked. */
export function linearShapes(config: ModelConfig): Readonly<Record<FusedLinear, LinearShape>> {
  const { hidden, heads, kvHeads, headDim, inner } = config
  const attention = (target: LoraTarget, out: number) => ({ target, path: `self_attn.${target}`, out })
  const mlp = (target: LoraTarget, out: number) => ({ target, path: `mlp.${target}`, out })
  const q = attention('q_proj', heads * headDim)
  const k = attention('k_proj', kvHeads * headDim)
  const v = attention('v_proj', kvHeads * headDim)
  return {
    qkv: fuse(hidden, [q, k, v]),
    o: fuse(heads * headDim, [attention('o_proj', hidden)]),
    gateUp: fuse(hidden, [mlp('gate_proj', inner), mlp('up_proj', inner)]),
    down: fuse(inner, [mlp('down_proj', hidden)]),
  }
}

function fuse(inputs: number, members: readonly LinearMember[]): LinearShape {
  return { in: inputs, out: members.reduce((sum, member) => sum + member.out, 0), members }
}
