// The rollouts of one GRPO step: our engine, transformers' generate() as users run it, and the same with the common prefix shared by hand.

import { openEngine, STEP } from './_engine'
import { benchOptions } from './_options'
import { type Peer, startPeer } from './_peer'
import { interleave, print } from './_report'

async function main(): Promise<void> {
  const { model, device, rounds, alone } = benchOptions()
  const engine = await openEngine(model, STEP, device)
  await engine.rollouts() // warm up
  const peers: Peer[] = alone ? [] : [await startPeer([]), await startPeer(['--share'])]
  const names = ['transformers generate, f32', 'the same, common prefix shared by hand']
  const rows = await interleave(rounds, [
    { name: 'arbor-nb', run: () => engine.rollouts() },
    ...peers.map((peer, i) => ({ name: names[i]!, run: () => peer.round('rollouts') })),
  ])
  const shape = `${STEP.groups} x ${STEP.rollouts}, prompt ${STEP.prompt} (${STEP.common} common), ${STEP.fresh} new tokens`
  print(`rollouts: ${shape}; ${engine.description}`, rows, {
    peers: peers.map((peer) => peer.description),
    tokens: engine.tokens,
  })
  for (const peer of peers) peer.close()
  await engine.close()
}

void main()
