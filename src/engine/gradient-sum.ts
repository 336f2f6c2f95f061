// From the gradients of a part to those of the whole step: summed by the devices where they form a group, else by whoever holds the parts together.

import type { PolicyWeights } from './policy-weights'
import type { StepPart } from './pool-member'

/** Leaves the sum over all parts in the policy's gradient tensors, the same bits for every engine. */
export async function sumGradients({ backend, trainables, stretches }: PolicyWeights, part: StepPart): Promise<void> {
  if (backend.group.joined) {
    const gradients = trainables.map(({ grad }) => grad)
    // What went wrong so far is heard here, while nobody waits for this device yet.
    await backend.download(gradients.at(-1)!.rows(0, 0))
    await part.sum(null)
    return backend.group.sum(gradients)
  }
  const gradients = stretches.map(({ grad }) => grad)
  const own = (await Promise.all(gradients.map((grad) => backend.download(grad)))) as Float32Array[]
  const total = await part.sum(own)
  for (const [i, grad] of gradients.entries()) backend.upload(grad, total![i]!)
}
