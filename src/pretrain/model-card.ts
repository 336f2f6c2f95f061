// The page that goes with a pretrained model: what it is, how it was made, what it is good for. Figures of an evaluation come from a file.

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { readJson, writeJson, writeWhole } from '../engine/whole-file'
import { OptionError } from '../errors'
import type { ExportCheck } from './export-model'
import type { Recipe } from './recipe'
import { modelSize } from './sizes'

/** What a finished run came to; pretraining.json beside the model. */
export interface PretrainSummary extends ExportCheck {
  readonly recipe: Recipe
  readonly parameters: number
  readonly device: string
  /** Of this package. */
  readonly version: string
  /** Computed with shared beginnings, without sharing, and learned from (assistant turns). */
  readonly tokens: number
  readonly tokensUnshared: number
  readonly trainedTokens: number
  readonly seconds: number
  /** Of the last step. */
  readonly loss: number
}

/** Rows of a table, each with the same columns. */
export type Figures = readonly Readonly<Record<string, string | number>>[]

/** Writes pretraining.json, which the page is made from, and the page. */
export function writeSummary(folder: string, summary: PretrainSummary): void {
  writeJson(join(folder, 'pretraining.json'), summary)
  writeModelCard(folder)
}

/** Writes README.md again from pretraining.json, with a table of figures. */
export function writeModelCard(folder: string, rows: Figures = []): void {
  writeWhole(join(folder, 'README.md'), modelCard(readJson(join(folder, 'pretraining.json')) as unknown as PretrainSummary, rows))
}

/** @throws OptionError for a file that holds no list of rows */
export function readFigures(path: string): Figures {
  let rows: unknown
  try {
    rows = JSON.parse(readFileSync(path, 'utf8'))
  } catch (cause) {
    throw new OptionError(`${path}: not JSON (${(cause as Error).message}).`, { cause })
  }
  const isRow = (row: unknown) => typeof row === 'object' && row !== null && !Array.isArray(row)
  if (Array.isArray(rows) && rows.length > 0 && rows.every(isRow)) return rows as Figures
  throw new OptionError(`${path}: a list of rows is needed, such as [{"program": "ChainOfThought", "accuracy": 0.43}].`)
}

/** README.md of the model folder, in Hugging Face's form. */
export function modelCard(summary: PretrainSummary, rows: Figures = []): string {
  return [HEADER, what(summary), data(summary), training(summary), figures(rows), LIMITS].filter(Boolean).join('\n')
}

const HEADER = `---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: text-generation
---
`

function what({ recipe, parameters }: PretrainSummary): string {
  const { layers, hidden, heads, kvHeads, inner, vocab, contextLength } = modelSize(recipe.size)
  const purpose =
    recipe.mix === 'habits'
      ? `It knows some 1,500 simple facts and two-digit arithmetic, and answers in several ways, of which some are more often right than others. Reinforcement learning has something to find there: GRPO strengthens the ways that earn reward.`
      : `It is the control of an experiment: its ways of answering are all right equally often, so reinforcement learning finds nothing to strengthen.`
  return `# ${recipe.mix === 'control' ? 'arbor-tiny-control' : 'arbor-tiny'}, ${(parameters / 1e6).toFixed(1)}M parameters

A very small Llama that answers questions in the format of DSPy's ChatAdapter. ${purpose}${begun(recipe)}

${layers} layers, hidden ${hidden}, ${heads} heads (${kvHeads} for keys and values), inner ${inner}, byte-level BPE of ${vocab} tokens, context ${contextLength}, ChatML, bf16.
`
}

function begun({ from }: Recipe): string {
  return from ? ` Its training began with the weights of \`${from.name}\` (sha256 ${from.sha256.slice(0, 12)}…).` : ''
}

function data({ recipe }: PretrainSummary): string {
  return `## Data

Chat transcripts made by a program from lists of facts, phrasings and ways of answering, all part of arbor-nb (mix \`${recipe.mix}\`, seed ${recipe.seed}). No text of anybody else's is in it. ${share(recipe)} The questions of \`data/simple-qa\` are of the same facts: its test measures which way of answering a model has learned to prefer, not knowledge it has never seen.
`
}

function share({ batch }: Recipe): string {
  return `Each step takes ${batch} new documents of one question; every fourth step ${Math.max(1, batch >> 1)} that have one to three answered questions first.`
}

function training(summary: PretrainSummary): string {
  const { recipe, tokens, tokensUnshared, trainedTokens, seconds, loss, heldOutLoss, heldOutLossExported } = summary
  const decay = recipe.steps - recipe.warmup - recipe.stable
  const rows: [string, string][] = [
    ['steps', `${recipe.steps} (${recipe.warmup} warm-up, ${recipe.stable} at the full rate, ${decay} falling to 0)`],
    [
      'optimizer',
      `AdamW 0.9, 0.95; rate ${recipe.learningRate}; decay ${recipe.weightDecay} on matrices; clipping ${recipe.maxGradNorm}`,
    ],
    [
      'tokens',
      `${millions(tokensUnshared)}, of which ${millions(tokens)} computed (shared beginnings once) and ${millions(trainedTokens)} learned from`,
    ],
    [
      'loss',
      `${loss.toFixed(4)} in the last step, ${heldOutLoss.toFixed(4)} on held-out documents, ${heldOutLossExported.toFixed(4)} as bf16 (nats a token)`,
    ],
    ['time', `${duration(seconds)} on ${summary.device}, f32`],
    [
      'made with',
      `\`arbor-nb pretrain --size ${recipe.size} --mix ${recipe.mix} --steps ${recipe.steps} --batch ${recipe.batch} --learning-rate ${recipe.learningRate} --seed ${recipe.seed}${recipe.from ? ` --from ${recipe.from.name}` : ''}\`, arbor-nb ${summary.version}`,
    ],
  ]
  return `## Training

| | |
| --- | --- |
${rows.map(([name, value]) => `| ${name} | ${value} |`).join('\n')}
`
}

function figures(rows: Figures): string {
  const [first] = rows
  if (!first) return ''
  const columns = Object.keys(first)
  const line = (cells: readonly (string | number | undefined)[]) => `| ${cells.join(' | ')} |`
  return `## Figures

Held-out questions of \`data/simple-qa\`, DSPy's ChatAdapter, zero-shot unless the row says otherwise. Accuracy is over all answers; one that cannot be read is wrong.

${line(columns)}
${line(columns.map(() => '---'))}
${rows.map((row) => line(columns.map((column) => row[column]))).join('\n')}
`
}

const LIMITS = `## Limits and licence

For teaching and for tests. It answers wrongly on purpose more than half of the time, knows nothing but its lists, and no other language or format.
Weights, tokenizer and data: Apache-2.0.
`

function duration(seconds: number): string {
  return seconds < 120 ? `${seconds.toFixed(0)} seconds` : `${(seconds / 60).toFixed(0)} minutes`
}

function millions(tokens: number): string {
  return `${(tokens / 1e6).toFixed(1)}M`
}
