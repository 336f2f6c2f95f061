// The rollouts of one GRPO step: our engine and, with --peers, transformers' generate() as users run it or with the common prefix shared by
// hand, and llama.cpp.

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
  const contenders = await startContenders('rollouts', { model, shape, peers, microBatch })
  const rows = await interleave(rounds, [{ name: 'arbor-nb', run: () => engine.rollouts() }, ...contenders.list])
  const measured = await measures(engine, rows[0]!, { what: 'rollouts', tokens: shape.groups * shape.rollouts * shape.fresh })
  rows[0] = { ...rows[0]!, note: measuresText(measured) }
  print(`rollouts: ${shapeText(shape)}; ${engine.description}`, rows, {
    peers: contenders.descriptions,
    tokens: engine.tokens,
    ...measured,
  })
  contenders.close()
  await engine.close()
}

void main()
