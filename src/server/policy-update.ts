// One update of a policy: rewards → advantages → (reference logprobs) → one training pass with GRPO's loss → new weights.

import type { Engine, LinearLoss, LossGradient, TrainStats } from '../engine/engine'
import { ArborError } from '../errors'
import {
  type EntropyState,
  entropyCoefficient,
  gradientIsKnown,
  type LossConfig,
  type LossRow,
  needsRow,
  type PolicyLoss,
  policyLoss,
} from '../grpo'
import type { TrainerConfig } from '../protocol'
import { scoreGroups } from './group-scores'
import { entropyControl, learningRateOf, longestRow, lossConfig, stepConfig } from './trainer-config'
import type { TrainingRow } from './training-rows'

export interface UpdateRun {
  readonly engine: Engine
  readonly config: TrainerConfig
  readonly policy: string
  readonly policyVersion: number
  /** Number of this step, from 1. */
  readonly step: number
  readonly contextLength: number
  /** Where the adaptive entropy bonus stands, when the config asks for one. */
  readonly entropy: EntropyState
}

export interface UpdateResult {
  /** One a row, groups one after the other. */
  readonly advantages: readonly number[]
  readonly zeroStdShare: number
  /** After the update; the old one when there was none. */
  readonly policyVersion: number
  readonly learningRate: number
  /** Weight of the entropy bonus in this update; null without one. */
  readonly entropyCoef: number | null
  /** Of the last iteration; null when there was nothing to learn from. */
  readonly loss: PolicyLoss | null
  readonly gradNorm: number
  readonly tokens: number
  readonly tokensUnshared: number
  readonly rowsTrained: number
  readonly seconds: number
  /** |stored − training pass| over the tokens of rollouts of this very policy version and prompt; null without any. */
  readonly gap: { readonly max: number; readonly mean: number } | null
  /** The same over rollouts under a grammar; null without any. */
  readonly constrained: { readonly rows: number; readonly max: number } | null
  readonly notes: readonly string[]
}

/** Throws ArborError where a loss or gradient is not a finite number; the engine's own errors pass through. */
export async function updatePolicy(groups: readonly (readonly TrainingRow[])[], run: UpdateRun): Promise<UpdateResult> {
  const started = performance.now()
  const rows = groups.flat()
  const learningRate = learningRateOf(run.config, run.step)
  const notes = rowNotes(rows, run)
  const scored = scoreGroups(groups, run.config)
  const control = entropyControl(run.config)
  const fixed = lossConfig(run.config, longestRow(run.config, run.contextLength))
  const config = control ? { ...fixed, entropyCoef: entropyCoefficient(run.entropy, control) } : fixed
  const lossRows = rows.map((row, i) => lossRow(row, scored.advantages[i]!, run))
  // The controller goes by the entropy of all rows, also in a step without a bonus.
  const needed = lossRows.map((row) => needsRow(row, control ? { ...config, entropyCoef: 1 } : config))
  const pass = rows.filter((_, i) => needed[i])
  const entropyCoef = control || config.entropyCoef !== 0 ? config.entropyCoef : null
  const { advantages, zeroStdShare } = scored
  const common = { advantages, zeroStdShare, learningRate, entropyCoef, rowsTrained: pass.length }
  if (pass.length === 0) {
    notes.push(nothingToLearn(lossRows))
    const idle = { loss: null, gradNorm: 0, tokens: 0, tokensUnshared: 0, seconds: 0, gap: null, constrained: null }
    return { ...common, ...idle, policyVersion: run.policyVersion, notes }
  }
  const withReference = await addReference(lossRows, needed, pass, run)
  const trained = await trainIterations(withReference, pass, { run, config, learningRate })
  return { ...common, ...trained, seconds: (performance.now() - started) / 1000, notes: [...notes, ...trained.notes] }
}

/** Training passes over the same rows; from the second on the ratio differs from 1. */
async function trainIterations(
  lossRows: readonly LossRow[],
  pass: readonly TrainingRow[],
  { run, config, learningRate }: { run: UpdateRun; config: LossConfig; learningRate: number },
) {
  let rows = lossRows
  let loss: PolicyLoss | null = null
  let first: Float32Array | null = null
  let stats: TrainStats | null = null
  let tokens = 0
  let tokensUnshared = 0
  const gradient: LossGradient = (logprobs, entropies) => {
    first ??= logprobs.slice()
    loss = policyLoss({ rows, logprobs, entropies }, config)
    if (!Number.isFinite(loss.loss) || !loss.dLogprobs.every(Number.isFinite))
      throw new ArborError(`The loss is ${loss.loss}: not a finite number. Lower the learning rate, or set max_grad_norm.`)
    return gradientOf(loss)
  }
  for (let iteration = 0; iteration < run.config.num_iterations; iteration++) {
    if (first) rows = withOldLogprobs(lossRows, first)
    const known = gradientIsKnown(rows, config) ? knownGradient(rows, pass, config) : null
    stats = await run.engine.trainStep(run.policy, pass, known ?? gradient, stepConfig(run.config, learningRate))
    if (known) gradient(stats.logprobs!, stats.entropies!) // the loss and its metrics, afterwards
    if (!Number.isFinite(stats.gradNorm))
      throw new ArborError(`The gradient's norm is ${stats.gradNorm}: the policy has left the numbers. Lower the learning rate.`)
    tokens += stats.tokens
    tokensUnshared += stats.tokensUnshared
  }
  const gaps = logprobGap(pass, first!, run)
  return { policyVersion: stats!.policyVersion, gradNorm: stats!.gradNorm, loss: loss!, tokens, tokensUnshared, ...gaps }
}

/** The gradient before the pass: the same whatever logprobs it will find, so zeros stand for them. No pack need wait for another then. */
function knownGradient(rows: readonly LossRow[], pass: readonly TrainingRow[], config: LossConfig): LinearLoss {
  const zeros = new Float32Array(pass.reduce((sum, { completion }) => sum + completion.length, 0))
  return gradientOf(policyLoss({ rows, logprobs: zeros, entropies: zeros }, config))
}

function gradientOf({ dLogprobs, dEntropies }: PolicyLoss): { dLogprobs: Float32Array; dEntropies?: Float32Array } {
  return { dLogprobs: new Float32Array(dLogprobs), ...(dEntropies && { dEntropies: new Float32Array(dEntropies) }) }
}

/** The first pass's logprobs become the old ones of rows that have none of their own. */
function withOldLogprobs(lossRows: readonly LossRow[], logprobs: Float32Array): LossRow[] {
  let offset = 0
  return lossRows.map((row) => {
    if (row.leftOut) return row
    const own = logprobs.subarray(offset, (offset += row.length))
    return { ...row, oldLogprobs: row.oldLogprobs ?? own }
  })
}

/**
 * A rollout of another policy version brings its own old logprobs; for one of the current version the pass itself gives them.
 * A row over the length limit is masked whole.
 */
function lossRow(row: TrainingRow, advantage: number, run: UpdateRun): LossRow {
  const { stored } = row
  const stale = stored !== null && stored.policyVersion !== run.policyVersion
  return {
    length: row.completion.length,
    advantage,
    truncated: row.truncated,
    ...(isTooLong(row, run) ? { mask: new Uint8Array(row.completion.length) } : {}),
    ...(stale ? { oldLogprobs: stored.logprobs } : {}),
    ...(stored && run.config.sampler_correction !== 'none' ? { samplerLogprobs: stored.logprobs } : {}),
  }
}

/** Marks rows that the pass can do without, and gives the others the base's logprobs when there is a KL term. */
async function addReference(
  lossRows: readonly LossRow[],
  needed: readonly boolean[],
  pass: readonly TrainingRow[],
  run: UpdateRun,
): Promise<LossRow[]> {
  const { beta, temperature } = run.config
  const reference = beta > 0 ? await run.engine.logprobs(null, pass, { temperature }) : null
  let next = 0
  return lossRows.map((row, i) => {
    if (!needed[i]) return { ...row, leftOut: true }
    const stats = reference?.[next++]
    return stats ? { ...row, refLogprobs: stats.logprobs } : row
  })
}

function logprobGap(
  pass: readonly TrainingRow[],
  logprobs: Float32Array,
  run: UpdateRun,
): Pick<UpdateResult, 'gap' | 'constrained' | 'notes'> {
  const gaps = { plain: [] as number[], altered: [] as number[], constrained: [] as number[] }
  let rows = 0
  let offset = 0
  for (const { stored, completion } of pass) {
    const own = logprobs.subarray(offset, (offset += completion.length))
    if (stored === null || stored.policyVersion !== run.policyVersion) continue
    if (stored.constrained) rows++
    const list = gaps[stored.constrained ? 'constrained' : stored.altered ? 'altered' : 'plain']
    for (let t = 0; t < own.length; t++) list.push(Math.abs(stored.logprobs[t]! - own[t]!))
  }
  const { plain, altered, constrained } = gaps
  const note = (values: readonly number[], how: string) =>
    values.length === 0
      ? []
      : [`${values.length} tokens were sampled ${how}; their largest logprob gap is ${largest(values).toExponential(1)}.`]
  return {
    gap: plain.length === 0 ? null : { max: largest(plain), mean: plain.reduce((sum, value) => sum + value, 0) / plain.length },
    constrained: rows === 0 ? null : { rows, max: largest(constrained) },
    notes: [
      ...note(altered, 'under truncation, a penalty or greedily'),
      ...note(constrained, 'under a grammar (response_format)'),
    ],
  }
}

function largest(values: readonly number[]): number {
  return values.reduce((max, value) => Math.max(max, value), 0)
}

function rowNotes(rows: readonly TrainingRow[], run: UpdateRun): string[] {
  const { max_prompt_length: longPrompt, lora_config: lora } = run.config
  const count = (test: (row: TrainingRow) => boolean) => rows.filter(test).length
  const notes: string[] = []
  const say = (n: number, text: string) => n > 0 && notes.push(`${n} of ${rows.length} ${text}`)
  say(
    count((row) => row.source === 'tokenized'),
    'completions were not found among those sampled here: tokenized again, without stored logprobs.',
  )
  say(
    count((row) => row.otherPrompt),
    'rows are trained under another prompt than they were sampled with (demos left out, or another format).',
  )
  say(
    count((row) => isTooLong(row, run)),
    `rows are longer than ${longestRow(run.config, run.contextLength)} tokens: left out.`,
  )
  say(
    count((row) => row.completion.length === 0),
    'completions are empty: nothing to train.',
  )
  say(
    count((row) => longPrompt !== null && row.prompt.length > longPrompt),
    `prompts are longer than max_prompt_length (${longPrompt}).`,
  )
  if (run.step === 1 && lora && lora.lora_dropout > 0)
    notes.push(`lora_dropout ${lora.lora_dropout} is not applied: it would part the model that samples from the one that trains.`)
  return notes
}

function nothingToLearn(rows: readonly LossRow[]): string {
  if (rows.every((row) => row.advantage === 0))
    return 'No group had a spread of rewards, so there was nothing to learn from: no update.'
  return 'All rows that could teach something were left out (cut at the token limit, too long or empty): no update.'
}

function isTooLong(row: TrainingRow, run: UpdateRun): boolean {
  return row.prompt.length + row.completion.length > longestRow(run.config, run.contextLength)
}
