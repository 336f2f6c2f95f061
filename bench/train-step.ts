// The training pass of one GRPO step (LoRA r16 on all linear layers, forward, backward, AdamW): our engine and peft as users run it.

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
  const peers: Peer[] = alone ? [] : [await startPeer(['--micro-batch', '4', ...(await peerShape(model, shape))])]
  const names = ['transformers + peft, f32, micro-batch 4']
  const rows = await interleave(rounds, [
    { name: 'arbor-nb', run: () => engine.trainStep() },
    ...peers.map((peer, i) => ({ name: names[i]!, run: () => peer.round('train-step') })),
  ])
  const measured = await measures(engine, rows[0]!, { what: 'trainStep', tokens: engine.tokens.computed })
  rows[0] = { ...rows[0]!, note: measuresText(measured) }
  print(`train-step: ${shapeText(shape)}; ${engine.description}`, rows, {
    peers: peers.map((peer) => peer.description),
    tokens: engine.tokens,
    ...measured,
  })
  for (const peer of peers) peer.close()
  await engine.close()
}

void main()
