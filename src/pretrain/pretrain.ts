// Pretraining: documents → batches → updates of all weights → checkpoints → a model folder. Everything random follows from the recipe's
// seed and a document's number, so a run that was cut off goes on to the same bits.

import type { Engine, ModelInfo, TokenStats } from '../engine/engine'
import { copyBaseModel, writeBaseModel } from './base-model'
import { type Batch, type DocumentSource, heldOutBatch, meanCrossEntropy, stepBatch } from './batches'
import { BpeEncoder } from './encoder'
import { checkModel, checkTokenizer, writeModel } from './export-model'
import { type PretrainSummary, writeSummary } from './model-card'
import { type Recipe, stepConfig } from './recipe'
import type { PretrainStep, RunFolder } from './run-folder'
import { modelSize } from './sizes'
import { readTokenizer } from './tokenizer-files'

export interface PretrainOptions {
  readonly recipe: Recipe
  /** A run that was begun there is gone on with. */
  readonly folder: RunFolder
  readonly documents: DocumentSource
  /** Folder of the model to begin with, when `recipe.from` says that there is one; not needed to go on. */
  readonly from?: string | undefined
  /** What the tokenizer is trained on; asked for when a run begins from nothing. */
  readonly tokenizerTexts: () => Iterable<string>
  /** Called for training, and to load the finished model again: an engine holds one model. */
  readonly openEngine: () => Engine
  readonly checkpointEvery: number
  /** This package's version, for the model's own page. */
  readonly version: string
  /** Aborting ends the run after the step under way, with a checkpoint. */
  readonly signal?: AbortSignal
  readonly onStep?: (step: PretrainStep) => void
  /** All steps so far, at each checkpoint. */
  readonly onCheckpoint?: (steps: readonly PretrainStep[]) => void
  readonly log?: (line: string) => void
}

const POLICY = 'pretrain'
/** Single documents measured at each checkpoint, and a quarter as many with demonstrations. */
const HELD_OUT_DOCUMENTS = 128

/** What training hands on to the export. */
interface Trained {
  readonly info: ModelInfo
  readonly steps: readonly PretrainStep[]
  readonly heldOut: readonly TokenStats[]
}

/** Runs to the end and answers what it came to; null when the signal ended it before, with a checkpoint. */
export async function pretrain(options: PretrainOptions): Promise<PretrainSummary | null> {
  const { recipe, folder, tokenizerTexts, log } = options
  await folder.makeOnce(folder.base, (path) => {
    if (options.from !== undefined) return copyBaseModel(path, options.from, modelSize(recipe.size))
    log?.(`Training a tokenizer on ${recipe.tokenizerDocuments} documents …`)
    writeBaseModel(path, recipe, tokenizerTexts())
  })
  const run = new Run(options, new BpeEncoder(readTokenizer(folder.base)))
  const trained = await run.withEngine((engine) => run.train(engine))
  return trained && run.finish(trained)
}

class Run {
  private readonly heldOut: Batch

  constructor(
    private readonly options: PretrainOptions,
    private readonly encoder: BpeEncoder,
  ) {
    this.heldOut = heldOutBatch(HELD_OUT_DOCUMENTS, { ...options, encoder })
  }

  async withEngine<T>(use: (engine: Engine) => Promise<T>): Promise<T> {
    const engine = this.options.openEngine()
    try {
      return await use(engine)
    } finally {
      await engine.close()
    }
  }

  /** All steps from the last checkpoint on; null when the signal ended them. */
  async train(engine: Engine): Promise<Trained | null> {
    const { recipe, folder, signal, log } = this.options
    const info = await engine.load({ name: `pretrain-${recipe.size}`, kind: 'folder', path: folder.base })
    log?.(`${(info.parameters / 1e6).toFixed(2)} M parameters on ${info.deviceDescription}`)
    const last = folder.lastCheckpoint()
    await engine.openPolicy(POLICY, { lora: null, seed: recipe.seed, ...(last && { checkpoint: last.folder }) })
    const done = last?.step ?? 0
    const steps = folder.takeSteps(done)
    if (done > 0) log?.(`Going on after step ${done} of ${recipe.steps}`)
    let batch = this.batch(done)
    for (let step = done; step < recipe.steps; step++) {
      const started = performance.now()
      const update = engine.trainStep(POLICY, batch.sequences, meanCrossEntropy(batch), stepConfig(recipe, step))
      // The engine computes in a thread of its own; meanwhile the next documents are made here.
      const next = step + 1 < recipe.steps ? this.batch(step + 1) : batch
      const { objective, gradNorm, tokens, tokensUnshared } = await update
      const record: PretrainStep = {
        step: step + 1,
        loss: objective!,
        learningRate: stepConfig(recipe, step).learningRate,
        gradNorm,
        tokens,
        tokensUnshared,
        trainedTokens: batch.trainedTokens,
        seconds: (performance.now() - started) / 1000,
      }
      batch = next
      await this.keep(engine, steps, record)
      if (signal?.aborted && record.step < recipe.steps) return null
    }
    return { info, steps, heldOut: await this.heldOutStats(engine) }
  }

  /** Writes the step's line; every so many steps, at the end and when the signal ends the run a checkpoint, too. */
  private async keep(engine: Engine, steps: PretrainStep[], record: PretrainStep): Promise<void> {
    const { recipe, folder, checkpointEvery, signal, onStep, onCheckpoint } = this.options
    const { step } = record
    const due = step % checkpointEvery === 0 || step === recipe.steps || signal?.aborted === true
    const line = due ? { ...record, heldOutLoss: meanLoss(await this.heldOutStats(engine)) } : record
    steps.push(line)
    folder.addStep(line)
    if (due) await folder.saveCheckpoint(step, (path) => engine.savePolicy(POLICY, path))
    onStep?.(line)
    if (due) onCheckpoint?.(steps)
  }

  /** The model folder: it gets its name when all in it has been checked. */
  async finish({ info, steps, heldOut }: Trained): Promise<PretrainSummary> {
    const { recipe, folder, version, log } = this.options
    const last = steps.at(-1)!
    let summary: PretrainSummary | null = null
    log?.(`Writing and checking ${folder.model} …`)
    await folder.makeOnce(folder.model, async (path) => {
      writeModel(path, { checkpoint: folder.lastCheckpoint()!.folder, base: folder.base, size: modelSize(recipe.size) })
      checkTokenizer(path, this.encoder, this.sampleTexts())
      const check = await this.withEngine((engine) => checkModel(path, { batch: this.heldOut, stats: heldOut }, engine))
      const sum = (of: (step: PretrainStep) => number) => steps.reduce((total, step) => total + of(step), 0)
      summary = {
        recipe,
        parameters: info.parameters,
        device: info.deviceDescription,
        version,
        tokens: sum(({ tokens }) => tokens),
        tokensUnshared: sum(({ tokensUnshared }) => tokensUnshared),
        trainedTokens: sum(({ trainedTokens }) => trainedTokens),
        seconds: sum(({ seconds }) => seconds),
        loss: last.loss,
        ...check,
      }
      writeSummary(path, summary)
    })
    return summary!
  }

  private batch(step: number): Batch {
    return stepBatch(step, this.options.recipe.batch, { ...this.options, encoder: this.encoder })
  }

  private heldOutStats(engine: Engine): Promise<TokenStats[]> {
    const { packTokens } = this.options.recipe
    return engine.logprobs(POLICY, this.heldOut.sequences, { temperature: 1, packTokens })
  }

  /** Turns that the finished tokenizer has to read as training did. */
  private sampleTexts(): string[] {
    return Array.from({ length: 50 }, (_, i) => this.options.documents(i, 'demos').messages.map(({ content }) => content)).flat()
  }
}

function meanLoss(stats: readonly TokenStats[]): number {
  const all = stats.flatMap(({ logprobs }) => [...logprobs])
  return -all.reduce((sum, value) => sum + value, 0) / all.length
}
