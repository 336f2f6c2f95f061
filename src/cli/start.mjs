// npm start: everything from a fresh clone to an executed workbook. npm start -- --model NAME -p name=value … passes on to the workbook.
import { mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { arborNb, fail, root, say, setUp } from './setup.mjs'

const DEFAULT_MODEL = 'arbor-tiny' // of engine/bundled-models.ts, which is not compiled yet when this begins

const HELP = `npm start [-- options]

Sets everything up, trains a language model with GRPO in the workbook, and writes the executed notebook and a page.
With the packages installed, the default needs no network.

  --model NAME       the base model                                        default: ${DEFAULT_MODEL}, which comes along
                     a hub name, a folder or a .gguf file, for instance HuggingFaceTB/SmolLM2-135M-Instruct (93 MB,
                     slower on two cores) or Qwen/Qwen2.5-1.5B-Instruct (the tutorial's; 3 GB, hours without a GPU)
  -p, --param N=V    overrides a variable of the workbook's parameters cell (repeatable), e.g. -p steps=4 -p seed=1
  --out DIR          where the results go                                  default: build/workbook
  -h, --help         this text`

const options = {
  model: { type: 'string', default: DEFAULT_MODEL },
  param: { type: 'string', short: 'p', multiple: true, default: [] },
  out: { type: 'string', default: join('build', 'workbook') },
  help: { type: 'boolean', short: 'h', default: false },
}

let values
try {
  values = parseArgs({ options, strict: true }).values
} catch (error) {
  fail(`${error.message}\n\n${HELP}`)
}
if (values.help) {
  console.log(HELP)
  process.exit(0)
}

const started = Date.now()
const { native } = await setUp()
if (!native)
  fail(
    'Without the native library the workbook would take hours here. Install what the line above names, then run npm start again.',
  )

say(`model ${values.model}`)
arborNb(['fetch', values.model])

say('workbook')
const out = join(root, values.out)
mkdirSync(out, { recursive: true })
const notebook = join(out, '01-grpo-workbook.ipynb')
const page = join(out, '01-grpo-workbook.html')
const training = Date.now()
const parameters = [`model=${values.model}`, ...values.param].flatMap((parameter) => ['-p', parameter])
const status = arborNb(['run', join('notebooks', '01-grpo-workbook.ipynb'), ...parameters, '-o', notebook, '--html', page], {
  mayFail: true,
})

/** The text of the cell tagged `summary`: the numbers before and after. */
function summary() {
  if (status !== 0) return ''
  const cell = JSON.parse(readFileSync(notebook, 'utf8')).cells.find(({ metadata }) => metadata.tags?.includes('summary'))
  const result = cell?.outputs.findLast(({ data, output_type }) => output_type === 'execute_result' && data['text/plain'])
  return result ? [result.data['text/plain']].flat().join('') : ''
}

const minutes = (since) => `${((Date.now() - since) / 60000).toFixed(1)} min`
console.error(`
${status === 0 ? 'Done' : 'The workbook stopped at an error'} (workbook ${minutes(training)}, all of it ${minutes(started)}).

${summary()}

  page      ${page}
  notebook  ${notebook}

To change cells and run them again, in JupyterLab:  npx arbor-nb lab`)
process.exit(status)
