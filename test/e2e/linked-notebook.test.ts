// A notebook outside the package, which it reaches by a link: types of the package's dependencies are then out of the notebook's reach.

import { execFile } from 'node:child_process'
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { expect, it } from 'vitest'
import { CLI, freshFolder, ROOT } from './tiny'

const CELLS = [
  `import { arbor, dspy, LoraConfig } from 'arbor-nb'
const loraConfig = new LoraConfig({ r: 16, lora_alpha: 16 })
const trainKwargs = { learning_rate: 5e-4, lora_config: { ...loraConfig, lora_alpha: 32 } }`,
  `const compiler = new arbor.ArborGRPO({ metric: (example, prediction) => example.answer === prediction.answer, trainKwargs })
const { settings, run } = compiler
const records = compiler.run?.records
const groups = compiler.run?.records[0]!.groups
const kwargs = compiler.settings.trainKwargs`,
  `const predict = new dspy.Predict('question -> answer: int')
const signature = predict.signature
const answer = async () => (await predict.call({ question: 'why?' })).answer`,
]

it('its variables keep their types', async () => {
  const folder = freshFolder()
  mkdirSync(join(folder, 'node_modules'))
  symlinkSync(ROOT, join(folder, 'node_modules/arbor-nb'))
  const cells = CELLS.map((source, i) => {
    return { cell_type: 'code', id: `c${i}`, metadata: {}, execution_count: null, outputs: [], source }
  })
  const notebook = join(folder, 'linked.ipynb')
  writeFileSync(notebook, JSON.stringify({ cells, metadata: {}, nbformat: 4, nbformat_minor: 5 }))
  const { stderr } = await promisify(execFile)(process.execPath, [CLI, 'run', notebook])
  expect(stderr).not.toContain('TypeScriptError')
})
