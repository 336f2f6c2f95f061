// arbor-nb pretrain: a base model from nothing: documents, tokenizer, training of all weights, a model folder.

import { join } from 'node:path'
import { WorkerEngine } from '../engine/worker-engine'
import { OptionError } from '../errors'
import { startingModel } from '../pretrain/base-model'
import { documentAt, trainingTexts } from '../pretrain/documents'
import { readFigures, writeModelCard } from '../pretrain/model-card'
import { pretrain } from '../pretrain/pretrain'
import { checkWishes, DEFAULT_SIZE, MIXES, makeRecipe, type Recipe, type RecipeWishes } from '../pretrain/recipe'
import { RunFolder } from '../pretrain/run-folder'
import { modelSize, SIZE_NAMES, sizeName } from '../pretrain/sizes'
import { choiceOption, numberOption, parseOptions } from './options'
import { packageInfo } from './package-info'
import { pretrainReporter } from './pretrain-report'
import { logLine } from './progress'

export const help = `Usage: arbor-nb pretrain [options]

Makes a base model, from nothing or from another: documents from lists of facts, a tokenizer, training of all weights. The result, OUT/model, is a
Hugging Face folder. A run that was ended goes on with --resume to the same weights as if it had not been.

  --size SIZE             ${SIZE_NAMES.join(', ')} (default ${DEFAULT_SIZE}; mini is for trying the command)
  --mix MIX               habits: some ways of answering are more often right; control: none is (default habits)
  --from DIR              begin with the weights and the tokenizer of a model that this command made, of the same size
  --steps N               updates (default: the size's own, 1200 for 1.5M, 2000 for 3M)
  --batch N               documents a step (default 512)
  --seed N                of the first weights and of the documents (default 0)
  --learning-rate RATE    the highest (default 0.003)
  --out DIR               default: pretrained/SIZE
  --resume                go on with the run in OUT
  --force                 take away the run in OUT and begin again
  --checkpoint-every N    steps (default 50)
  --figures FILE          write the README of the finished model again, with a table of figures (JSON: a list of rows)
  --device DEVICE         cpu, cuda, tfjs or auto (default: $ARBOR_DEVICE, else auto)
  --precision P           of products and, on a GPU, activations: f32 (default) or bf16; what is trained is f32 either way
  --threads N             of the CPU (default: all cores)
  -h, --help              this text

OUT gets recipe.json, steps.jsonl (a line a step), loss.html and loss.svg, checkpoints/, model/.
Ctrl-C ends after the step under way, with a checkpoint; a second Ctrl-C ends at once.`

const OPTIONS = {
  size: { type: 'string' },
  mix: { type: 'string' },
  from: { type: 'string' },
  steps: { type: 'string' },
  batch: { type: 'string' },
  seed: { type: 'string' },
  'learning-rate': { type: 'string' },
  out: { type: 'string' },
  resume: { type: 'boolean' },
  force: { type: 'boolean' },
  'checkpoint-every': { type: 'string' },
  figures: { type: 'string' },
  device: { type: 'string' },
  precision: { type: 'string' },
  threads: { type: 'string' },
} as const

type Values = ReturnType<typeof parseOptions<typeof OPTIONS>>['values']

export async function run(argv: readonly string[]): Promise<number> {
  const { values } = parseOptions(argv, OPTIONS)
  if (values.resume && values.from !== undefined)
    throw new OptionError('--resume goes on from the run’s own checkpoint: leave --from out.')
  if (values.resume && values.force) throw new OptionError('--resume and --force cannot both be meant: go on, or begin again?')
  if (values.figures !== undefined) return writeFigures(values, values.figures)
  const checkpointEvery = numberOption(values['checkpoint-every'], '--checkpoint-every', { min: 1, integer: true }) ?? 50
  const threads = numberOption(values.threads, '--threads', { min: 1, integer: true })
  if (threads !== undefined) process.env['ARBOR_THREADS'] = String(threads)
  const device = choiceOption(values.device ?? 'auto', '--device', ['auto', 'cpu', 'cuda', 'tfjs'])
  const precision = choiceOption(values.precision ?? 'f32', '--precision', ['f32', 'bf16'])
  const { folder, recipe } = openRun(values)
  const report = pretrainReporter(folder, recipe)
  const summary = await pretrain({
    recipe,
    folder,
    from: values.from,
    documents: (index, kind) => documentAt(index, { seed: recipe.seed, kind, mix: recipe.mix }),
    tokenizerTexts: () => trainingTexts(recipe.tokenizerDocuments, recipe.seed),
    // Both engines of a run: the finished model is compared with the trained weights as it was exported, computed alike.
    openEngine: () => new WorkerEngine({ device, precision }),
    checkpointEvery,
    version: packageInfo().version,
    signal: interruption(),
    log: logLine,
    ...report,
  })
  if (!summary) {
    logLine(`Ended with a checkpoint. Go on with: arbor-nb pretrain --out ${folder.path} --resume`)
    return 130
  }
  logLine(
    `Held-out loss ${summary.heldOutLoss.toFixed(4)}, as written in bf16 ${summary.heldOutLossExported.toFixed(4)}; logprobs differ by ${summary.meanGap.toFixed(4)} on the mean.`,
  )
  process.stdout.write(`${folder.model}\n`)
  return 0
}

/** The folder with its recipe: a new one, or the one to go on with. */
function openRun(values: Values): { folder: RunFolder; recipe: Recipe } {
  const wishes = wishesOf(values)
  const drawn = makeRecipe(wishes) // even where it is not used: a size that there is not is an error
  const wished = values.from === undefined ? drawn : { ...drawn, from: startingModel(values.from, modelSize(drawn.size)) }
  const folder = new RunFolder(values.out ?? join('pretrained', wished.size))
  if (values.force) folder.clear()
  const begun = folder.recipe()
  if (values.resume) {
    if (!begun) throw new OptionError(`${folder.path}: no pretraining run to go on with. Leave --resume out to begin one.`)
    checkWishes(begun, wishes)
    if (folder.finished) throw new OptionError(`${folder.path}: this run is finished; the model is ${folder.model}.`)
    return { folder, recipe: begun }
  }
  if (begun)
    throw new OptionError(
      `${folder.path} holds a ${folder.finished ? 'finished' : 'begun'} run. ${folder.finished ? '' : 'Go on with it: --resume. '}Begin again in its place: --force. Or choose another folder with --out.`,
    )
  folder.begin(wished)
  return { folder, recipe: wished }
}

function writeFigures({ out, size }: Values, file: string): number {
  const folder = new RunFolder(out ?? join('pretrained', sizeName(size ?? DEFAULT_SIZE)))
  if (!folder.finished) throw new OptionError(`${folder.path}: no finished model there to write about.`)
  writeModelCard(folder.model, readFigures(file))
  process.stdout.write(`${join(folder.model, 'README.md')}\n`)
  return 0
}

function wishesOf(values: Values): RecipeWishes {
  const whole = (value: string | undefined, flag: string, min: number) => numberOption(value, flag, { min, integer: true })
  return {
    size: values.size === undefined ? undefined : sizeName(values.size),
    mix: values.mix === undefined ? undefined : choiceOption(values.mix, '--mix', MIXES),
    seed: whole(values.seed, '--seed', 0),
    steps: whole(values.steps, '--steps', 1),
    batch: whole(values.batch, '--batch', 1),
    learningRate: numberOption(values['learning-rate'], '--learning-rate', { min: 0 }),
  }
}

/** Aborts at the first Ctrl-C (or SIGTERM); the second ends the process. */
function interruption(): AbortSignal {
  const controller = new AbortController()
  for (const signal of ['SIGINT', 'SIGTERM'] as const)
    process.on(signal, () => {
      if (controller.signal.aborted) process.exit(130)
      logLine('Ending after this step, with a checkpoint … (Ctrl-C again ends at once)')
      controller.abort()
    })
  return controller.signal
}
