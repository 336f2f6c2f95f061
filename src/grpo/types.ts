// Words shared by advantage.ts and loss.ts. The folder is mathematics only: it imports nothing.

export type LossType = 'grpo' | 'bnpo' | 'dr_grpo' | 'dapo' | 'cispo'
export type ScaleRewards = 'group' | 'batch' | 'none'
export type SamplerCorrection = 'none' | 'token_truncate' | 'token_mask' | 'sequence_truncate' | 'sequence_mask'
