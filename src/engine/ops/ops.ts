// The narrow interface between the model and a device: an in-order stream with memory, and about twelve ops.
// Every op only enqueues; `download` is the only call that waits. All matrices are row-major.

export type DType = 'f32' | 'bf16' | 'i32'
/** What frozen weights are kept in. With bf16 a product also rounds its other operand to bf16; sums and everything trained stay f32. */
export type Precision = 'f32' | 'bf16'
export type TypedArray = Float32Array | Int32Array | Uint16Array

/** Memory on a device. `rows(start, count)` is a view of whole rows of the first dimension; it owns nothing. */
export interface Tensor {
  readonly dtype: DType
  readonly shape: readonly number[]
  rows(start: number, count: number): Tensor
}

/** One block of device memory, carved by a cursor. `reset` frees everything taken after `mark` (default: all). */
export interface Arena {
  tensor(shape: readonly number[], dtype?: DType): Tensor
  /**
   * While nothing lies in the arena: room for so many bytes in one piece, in the place of what it had, unless that will do. Tensors that come one after the
   * other leave the ends of smaller pieces empty. Where so much can't be had at once, it is taken piece by piece as before.
   */
  reserve(bytes: number): void
  mark(): number
  reset(mark?: number): void
  readonly used: number
  readonly capacity: number
  close(): void
}

/** Ops recorded once, to be enqueued again as one: all that may differ between replays lies in the tensors they read. */
export interface Capture {
  replay(): void
  /** Forgets what was recorded. */
  free(): void
}

/** One member's place in a group. */
export interface GroupPlace {
  /** Made by one member, given to all. */
  readonly id: Uint8Array
  readonly ranks: number
  /** From 0. */
  readonly rank: number
}

/** Devices of one process that sum tensors among themselves. */
export interface DeviceGroup {
  readonly joined: boolean
  /** What the members of a new group find each other by. Throws BackendError where there is no way to sum over devices. */
  id(): Uint8Array
  /** Resolves when all members are there; a device alone is a group of one. */
  join(place: GroupPlace): Promise<void>
  /**
   * Sums f32 tensors in place, in one fixed order: all members get the same bits. All must ask for tensors of the same lengths. Resolves when the sums are
   * there; rejects when another member is gone or doesn't come in time.
   */
  sum(tensors: readonly Tensor[]): Promise<void>
  /** Also while a sum waits for the others: it rejects then, and so does theirs. */
  leave(): void
}

export interface Backend {
  readonly device: 'cpu' | 'cuda' | 'tfjs'
  /** For people: library, instruction set, threads. */
  readonly description: string
  /** Of the weights that `prepareWeight` makes. */
  readonly precision: Precision
  /** What activations are kept in: hidden states, q, k, v and their gradients. Statistics, logits, dk, dv and all that is trained are f32. */
  readonly activations: 'f32' | 'bf16'
  /** `bytes` is a first guess: a host backend may grow in further blocks, a device may refuse with a plan. */
  arena(bytes: number): Arena
  upload(to: Tensor, data: TypedArray): void
  /** Waits for everything enqueued so far. Errors of earlier ops surface here as BackendError. `into`: as many values of the same type, nobody else's until then. */
  download(from: Tensor, into?: TypedArray): Promise<TypedArray>
  /** A download whose copy is asked for now and that nobody waits for before its answer is called: meanwhile more can be enqueued. */
  fetch(from: Tensor, into?: TypedArray): () => Promise<TypedArray>
  /** Records what `run` enqueues instead of running it; it holds neither uploads nor downloads. What it works on must stay where it is. */
  capture(run: () => void): Capture
  /**
   * Takes a weight matrix [out, in] that never changes into the layout `linear` likes best (may be the tensor itself).
   * The result goes wherever `weight`, `table` or `head` is asked for; the source may be released afterwards. `adapted`: only as the `weight` of linears
   * that have adapters, for which a device may keep room beside it.
   */
  prepareWeight(shape: readonly [number, number], data: Float32Array, use?: { readonly adapted: boolean }): Tensor
  /** Bytes of the device's own memory; null where it shares the host's. */
  memory(): { readonly free: number; readonly total: number } | null
  readonly ops: Ops
  readonly group: DeviceGroup
  close(): void
}

/**
 * A linear's LoRA matrices. A fused weight (qkv, gate_up) has one part per member: `a` stacks the members' A's, `b` stacks their B's by output rows.
 * A part may be switched off (member not targeted) by zeros in `b` and in its gradients (`partMask`).
 */
export interface Adapter {
  readonly a: Tensor // [parts * rank, in]
  readonly b: Tensor // [out, rank]
  readonly parts: readonly number[] // output rows of each member, sum = out
  readonly rank: number
  readonly scale: number // lora_alpha / r
}

/** One LoRA adapter on a range of rows of a linear. */
export interface LoraSlice extends Adapter {
  readonly rowStart: number
  readonly rowCount: number
  readonly xa: Tensor // [rowCount, parts * rank], its row 0 is row rowStart of x; written by linear, read by linearBackward
}

export interface LoraGradSlice extends LoraSlice {
  readonly da: Tensor // [parts * rank, in], accumulated into
  readonly db: Tensor // [out, rank], accumulated into
}

/**
 * Which keys each query row sees. Segment s is a run of query rows; its context lists the rows ("slots") of `k` and `v` it sees,
 * in order of position, its own rows last. Query i of the segment sees the first contextLength - rowCount + i + 1 entries.
 * So one description serves packed prefix trees (slot = row of the pack), prefill over a cached prefix, and decode.
 */
export interface AttentionPlan {
  readonly segments: Tensor // i32 [segmentCapacity, 4]: rowStart, rowCount, contextStart, contextLength
  readonly context: Tensor // i32 [contextCapacity]: slots
  readonly segmentCount: number
}

export interface Ops {
  fill(target: Tensor, value: number): void
  copy(to: Tensor, from: Tensor): void
  /** out[i] = from[rows[i]] */
  gatherRows(args: { out: Tensor; from: Tensor; rows: Tensor }): void // [n, d], [tokens, d], i32 [n]

  embed(args: { out: Tensor; table: Tensor; ids: Tensor }): void // [tokens, hidden], [vocab, hidden], i32 [tokens]
  embedBackward(args: { dTable: Tensor; dOut: Tensor; ids: Tensor }): void // accumulates

  /** sum = x + delta (when given); y = rmsnorm(sum) * weight; rstd saved. `sum` may be `x`. */
  rmsNorm(args: { y: Tensor; rstd: Tensor; x: Tensor; weight: Tensor; eps: number; delta?: Tensor; sum?: Tensor }): void // [tokens, hidden], [tokens], …, [hidden]
  /** dx = dResidual + d(rmsnorm); `x` is the normalised input (the `sum` of the forward). `dx` may be `dResidual`. */
  rmsNormBackward(args: {
    dx: Tensor
    dy: Tensor
    x: Tensor
    weight: Tensor
    rstd: Tensor
    dResidual?: Tensor
    dWeight?: Tensor
  }): void

  /**
   * y = x Wᵀ + bias + Σ slices scale (x Aᵀ) Bᵀ. `y` is of x's type or f32. `decode`: the rows are one for each sequence that decodes, so a device may
   * take the way that suits few rows; a row has the same bits among any others that decode, and y is for one reader (`ropeStoreKv`, `swiglu`: they may
   * use it up). `laid`: `layAdapters` had these adapters, in this order.
   */
  linear(args: {
    y: Tensor // [tokens, out]
    x: Tensor // [tokens, in]
    weight: Tensor // [out, in]
    bias?: Tensor // [out]
    loras?: readonly LoraSlice[]
    decode?: boolean
    laid?: boolean
  }): void
  /**
   * Before linears with `laid`: lays each weight's adapters beside it, where the device gains by that. Weights are of `prepareWeight`, `adapted`. A list
   * that is given again is the same list.
   */
  layAdapters(of: readonly { weight: Tensor; adapters: readonly Adapter[] }[]): void
  /** dx = dy W + Σ scale (dy B) A (overwrites dx); da, db, dWeight, dBias accumulate. `x` is the forward's input; without it dx is all that is computed. */
  linearBackward(args: {
    dx?: Tensor
    dy: Tensor
    x?: Tensor
    weight: Tensor
    loras?: readonly LoraGradSlice[]
    dWeight?: Tensor // f32 [out, in], plain layout
    dBias?: Tensor
  }): void

  /** q = rotated q; k[slot] = rotated k; v[slot] = v. `rope` holds cos then sin: [positions, headDim] = cos[half] | sin[half]; halves rotate as in Hugging Face. */
  ropeStoreKv(args: {
    qkv: Tensor // [tokens, (heads + 2 kvHeads) * headDim]
    q: Tensor // [tokens, heads * headDim]
    k: Tensor // [slots, kvHeads * headDim]
    v: Tensor
    positions: Tensor // i32 [tokens]
    slots: Tensor // i32 [tokens]
    rope: Tensor // f32 [positions, headDim]
    heads: number
    kvHeads: number
    headDim: number
  }): void
  /** dqkv from dq and from dk, dv (f32) at each token's slot; the angle negated. */
  ropeStoreKvBackward(args: {
    dqkv: Tensor
    dq: Tensor
    dk: Tensor
    dv: Tensor
    positions: Tensor
    slots: Tensor
    rope: Tensor
    heads: number
    kvHeads: number
    headDim: number
  }): void

  /**
   * Softmax attention at scale 1/√headDim; saves logsumexp per row and head when `lse` is given. `decode`: as for `linear`, each segment is one row. Without
   * it a query has the same bits in a segment of its own as in a longer one. `samePlan`: the call before had this plan, and nothing wrote to it since.
   */
  attention(args: {
    out: Tensor // [tokens, heads * headDim]
    q: Tensor
    k: Tensor // [slots, kvHeads * headDim]
    v: Tensor
    plan: AttentionPlan
    heads: number
    kvHeads: number
    headDim: number
    lse?: Tensor // f32 [tokens, heads]
    decode?: boolean
    samePlan?: boolean
  }): void
  /** Overwrites dq and dk, dv (f32). Sums into a shared ancestor run over its descendants in segment order. `samePlan`: as for `attention`. */
  attentionBackward(args: {
    dq: Tensor
    dk: Tensor
    dv: Tensor
    dOut: Tensor
    out: Tensor
    q: Tensor
    k: Tensor
    v: Tensor
    lse: Tensor
    plan: AttentionPlan
    heads: number
    kvHeads: number
    headDim: number
    samePlan?: boolean
  }): void

  /** y = silu(gate) * up, gateUp = gate | up */
  swiglu(args: { y: Tensor; gateUp: Tensor }): void // [tokens, inner], [tokens, 2 * inner]
  /** `y`, where given, has swiglu's output again. dGateUp may be gateUp, and y dy. */
  swigluBackward(args: { dGateUp: Tensor; dy: Tensor; gateUp: Tensor; y?: Tensor }): void

  /** For pair i: log-softmax(head · hidden[rows[i]] / temperature) at targets[i], its entropy, and the logsumexp. Logits stay only in `logits`. */
  logprob(args: {
    logprobs: Tensor // f32 [pairs]
    entropies: Tensor // f32 [pairs]
    lse: Tensor // f32 [pairs]
    logits?: Tensor // f32 [pairs, vocab]: room to keep them; a backend may do without
    hidden: Tensor // [tokens, hidden]
    rows: Tensor // i32 [pairs]
    targets: Tensor // i32 [pairs]
    head: Tensor // [vocab, hidden]
    temperature: number
  }): void
  /** dHidden is overwritten (zero where no pair reads); dHead accumulates. dz = (1/T)[g(1[v=t] − p) − h p(log p + H)]. */
  logprobBackward(args: {
    dHidden: Tensor
    dLogprobs: Tensor
    dEntropies?: Tensor
    /** logprob hasn't run: its outputs are computed here, from the same logits. */
    forward?: boolean
    logprobs: Tensor
    entropies: Tensor
    lse: Tensor
    logits?: Tensor // as logprob left them: they needn't be computed again; with `forward`, room to keep them
    hidden: Tensor
    rows: Tensor
    targets: Tensor
    head: Tensor
    temperature: number
    dHead?: Tensor
  }): void

  /** One token for each row of `logits`; `sampling.ts` is the definition of every step (order, random number, ties). */
  sample(args: {
    logits: Tensor // f32 [rows, vocab]; may be overwritten
    floats: Tensor // f32 [rows, 6]: temperature, topP, minP, repetitionPenalty, uniform in [0,1), 0
    ints: Tensor // i32 [rows, 4]: topK (0 = off), historyStart, historyCount, 1 + row of `allowed` (0 = every token may come)
    history: Tensor // i32 [capacity]: distinct token ids that the repetition penalty applies to
    allowed?: Tensor // i32 [allowedRows, ceil(vocab / 32)]: bit t & 31 of word t >> 5 says whether token t may come; one must
    tokens: Tensor // i32 [rows]
    logprobs: Tensor // f32 [rows, 2]: at the row's temperature over the full vocabulary before any change; the same at T = 1
  }): void

  /** out[0] += Σ x² */
  sumSquares(args: { out: Tensor; x: Tensor }): void
  /** Decoupled weight decay; the gradient is multiplied by gradScale first (clipping). `step` counts from 1. */
  adamw(args: {
    param: Tensor
    grad: Tensor
    m: Tensor
    v: Tensor
    learningRate: number
    beta1: number
    beta2: number
    eps: number
    weightDecay: number
    gradScale: number
    step: number
  }): void
}
