// All logits of one sequence: what two models are compared by. Training and sampling never need them whole.

import { ContextWindowExceededError } from '../errors'
import type { Model } from './model'
import type { Arena, Backend, Tensor } from './ops/ops'
import type { PolicyWeights } from './policy-weights'

/** [tokens, vocab]: row i scores what follows token i. Null is the base. */
export async function sequenceLogits(
  backend: Backend,
  model: Model,
  { tokens, weights }: { readonly tokens: readonly number[]; readonly weights: PolicyWeights | null },
): Promise<Float32Array> {
  const count = tokens.length
  if (count > model.config.contextLength)
    throw new ContextWindowExceededError(`${count} tokens; the maximum context length is ${model.config.contextLength} tokens.`)
  const arena = backend.arena(1 << 20) // grows
  try {
    const rows = Int32Array.from(tokens, (_, i) => i)
    const batch = {
      tokens: count,
      ids: ints(backend, arena, Int32Array.from(tokens)),
      positions: ints(backend, arena, rows),
      slots: ints(backend, arena, rows),
      plan: {
        segments: ints(backend, arena, Int32Array.of(0, count, 0, count), [1, 4]),
        context: ints(backend, arena, rows),
        segmentCount: 1,
      },
      policies: weights ? [{ policy: '', rowStart: 0, rowCount: count }] : [],
    }
    const own = weights?.own?.weights
    const options = { arena, loras: () => weights!, ...(own && { weights: own }) }
    const hidden = model.forward(batch, model.kvStores(count, arena), options)
    const out = arena.tensor([count, model.config.vocab])
    model.logits(hidden, out, own?.head)
    return (await backend.download(out)) as Float32Array
  } finally {
    arena.close()
  }
}

function ints(backend: Backend, arena: Arena, data: Int32Array, shape: readonly number[] = [data.length]): Tensor {
  const tensor = arena.tensor(shape, 'i32')
  backend.upload(tensor, data)
  return tensor
}
