// The rollouts of one GRPO step: our engine, transformers' generate() as users run it, and the same with the common prefix shared by hand.

import { openEngine, shapeText, stepShape } from './_engine'
import { measures, measuresText } from './_measures'
import { benchOptions } from './_options'
import { type Peer, peerShape, startPeer } from './_peer'
import { interleave, print } from './_report'

async function main(): Promise<void> {
  const { model, device, precision, rounds, alone, tiny } = benchOptions()
  const shape = stepShape({ tiny })
  const engine = await openEngine(model, shape, { device, precision })
  await engine.rollouts() // warm up
  const peers: Peer[] = alone
    ? []
    : [await startPeer(await peerShape(model, shape)), await startPeer(['--share', ...(await peerShape(model, shape))])]
  const names = ['transformers generate, f32', 'the same, common prefix shared by hand']
  const rows = await interleave(rounds, [
    { name: 'arbor-nb', run: () => engine.rollouts() },
    ...peers.map((peer, i) => ({ name: names[i]!, run: () => peer.round('rollouts') })),
  ])
  const measured = await measures(engine, rows[0]!, { what: 'rollouts', tokens: shape.groups * shape.rollouts * shape.fresh })
  rows[0] = { ...rows[0]!, note: measuresText(measured) }
  print(`rollouts: ${shapeText(shape)}; ${engine.description}`, rows, {
    peers: peers.map((peer) => peer.description),
    tokens: engine.tokens,
    ...measured,
  })
  for (const peer of peers) peer.close()
  await engine.close()
}

void main()
