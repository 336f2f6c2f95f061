// The training pass of one GRPO step (LoRA r16 on all linear layers, forward, backward, AdamW): our engine and, with --peers, peft as users
// run it or with the common prefix shared by hand.

import { startContenders } from './_contenders'
import { openEngine, shapeText, stepShape } from './_engine'
import { measures, measuresText } from './_measures'
import { benchOptions } from './_options'
import { interleave, print } from './_report'

async function main(): Promise<void> {
  const { model, device, precision, rounds, peers, microBatch, tiny } = benchOptions()
  const shape = stepShape({ tiny })
  const engine = await openEngine(model, shape, { device, precision })
  await engine.rollouts() // warm up
  const contenders = await startContenders('train-step', { model, shape, peers, microBatch })
  const rows = await interleave(rounds, [{ name: 'arbor-nb', run: () => engine.trainStep() }, ...contenders.list])
  const measured = await measures(engine, rows[0]!, { what: 'trainStep', tokens: engine.tokens.computed })
  rows[0] = { ...rows[0]!, note: measuresText(measured) }
  print(`train-step: ${shapeText(shape)}; ${engine.description}`, rows, {
    peers: contenders.descriptions,
    tokens: engine.tokens,
    ...measured,
  })
  contenders.close()
  await engine.close()
}

void main()
