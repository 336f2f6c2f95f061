// The notebook that `arbor-nb init` writes: one program, one metric, one short training run.

import { randomBytes } from 'node:crypto'
import { DISPLAY_NAME, KERNEL_NAME } from '../../kernels/jupyter/install'
import type { Cell, Notebook } from './notebook'

const INTRODUCTION = `# A first notebook

A program asks a small language model questions; a metric scores the answers; GRPO trains the model's weights on the scores.
The model, \`arbor-tiny\`, comes with arbor-nb, so nothing is fetched, and two CPU cores are enough: the cells below take about a minute.`

const PARAMETERS = `let steps = 30 // of training; 100 go further
let seed = 0`

const SET_UP = `import { arbor, dspy, plot, LoraConfig } from 'arbor-nb'

const server = await arbor.startServer('arbor-tiny')
const lm = new dspy.LM('openai/arbor:arbor-tiny', {
  provider: new arbor.ArborProvider(),
  apiBase: server.baseUrl,
  temperature: 1,
  maxTokens: 96,
})
dspy.configure({ lm })`

const PROGRAM = `const program = new dspy.ChainOfThought('question -> answer')
const { trainset, devset, testset } = await dspy.loadExamples('data/simple-qa', { inputs: ['question'] })
const { question } = trainset[0]!
const { reasoning, answer } = await dspy.context({ lmOptions: { temperature: 0 } }, () => program.call({ question }))
plot.table([{ question, reasoning, answer }])`

const METRIC = `const metric: dspy.Metric = (example, prediction) =>
  prediction.answer.toLowerCase().includes(example.answer.toLowerCase())

const evaluate = new dspy.Evaluate({ devset: testset.slice(0, 100), metric, numThreads: 32, maxErrors: Infinity })
const before = await dspy.context({ lmOptions: { seed: 1 } }, () => evaluate.call(program))
console.log(\`\${before.score} % of 100 held-out questions answered right\`)`

const TRAINING = `const compiler = new arbor.ArborGRPO({
  metric,
  numDspyExamplesPerGrpoStep: 8,
  numRolloutsPerGrpoStep: 4,
  numTrainSteps: steps,
  seed,
  checkpoint: 'checkpoints/first',
  trainKwargs: { learning_rate: 1e-3, loss_type: 'dapo', lora_config: new LoraConfig({ r: 16, lora_alpha: 32 }) },
})
const trained = await compiler.compile(program, { trainset, valset: devset.slice(0, 50) })`

const AFTER = `const after = await dspy.context({ lmOptions: { seed: 1 } }, () => evaluate.call(trained))
plot.table([
  { program: 'untrained', 'right %': before.score },
  { program: 'trained', 'right %': after.score },
])`

const CLOSING = `The weights changed, the prompt did not. \`npx arbor-nb lab\` without a name opens the whole workbook: what the charts mean,
what each setting does, and how a run goes wrong while its reward looks splendid.`

/** The notebook, without outputs; the cell tagged \`parameters\` is what \`arbor-nb run -p\` overrides. */
export function firstNotebook(): Notebook {
  const cells = [
    text(INTRODUCTION),
    code(PARAMETERS, ['parameters']),
    code(SET_UP),
    text('The program: input and output are named in its signature, which is also where their types come from.'),
    code(PROGRAM),
    text('The metric decides what is good. An answer that cannot be read counts as wrong.'),
    code(METRIC),
    text(
      'Training: eight questions a step, four answers each. An answer better than its siblings becomes likelier. The charts follow.',
    ),
    code(TRAINING),
    text('The same questions again, asked of the trained program:'),
    code(AFTER),
    text(CLOSING),
  ]
  return {
    nbformat: 4,
    nbformat_minor: 5,
    metadata: {
      kernelspec: { display_name: DISPLAY_NAME, language: 'typescript', name: KERNEL_NAME },
      language_info: { name: 'typescript', file_extension: '.ts', mimetype: 'text/x.typescript' },
    },
    cells,
  }
}

function text(source: string): Cell {
  return { cell_type: 'markdown', id: cellId(), metadata: {}, source }
}

function code(source: string, tags?: readonly string[]): Cell {
  const metadata = tags === undefined ? {} : { tags }
  return { cell_type: 'code', id: cellId(), metadata, source, execution_count: null, outputs: [] }
}

/** Every cell of nbformat 4.5 has a name of its own. */
function cellId(): string {
  return randomBytes(4).toString('hex')
}
