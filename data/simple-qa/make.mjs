// Writes train.jsonl, dev.jsonl, test.jsonl and demos.jsonl from the facts of data/facts: npm run build && node data/simple-qa/make.mjs
import { writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import pretrain from '../../dist/src/pretrain/question-sets.js'

const folder = dirname(fileURLToPath(import.meta.url))
for (const [name, rows] of Object.entries(pretrain.questionSets())) {
  writeFileSync(join(folder, `${name}.jsonl`), rows.map((row) => JSON.stringify(row) + '\n').join(''))
  console.log(`${name}: ${rows.length}`)
}
