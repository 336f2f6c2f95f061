// The training pass of one GRPO step (LoRA r16 on all linear layers, forward, backward, AdamW): our engine and peft as users run it.

import { openEngine, STEP } from './_engine'
import { benchOptions } from './_options'
import { type Peer, startPeer } from './_peer'
import { interleave, print } from './_report'

async function main(): Promise<void> {
  const { model, device, rounds, alone } = benchOptions()
  const engine = await openEngine(model, STEP, device)
  await engine.rollouts() // warm up
  const peers: Peer[] = alone ? [] : [await startPeer(['--micro-batch', '4'])]
  const names = ['transformers + peft, f32, micro-batch 4']
  const rows = await interleave(rounds, [
    { name: 'arbor-nb', run: () => engine.trainStep() },
    ...peers.map((peer, i) => ({ name: names[i]!, run: () => peer.round('train-step') })),
  ])
  const shape = `${STEP.groups} x ${STEP.rollouts}, prompt ${STEP.prompt} (${STEP.common} common), ${STEP.fresh} new tokens`
  print(`train-step: ${shape}; ${engine.description}`, rows, {
    peers: peers.map((peer) => peer.description),
    tokens: engine.tokens,
  })
  for (const peer of peers) peer.close()
  await engine.close()
}

void main()
