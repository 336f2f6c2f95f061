// Small texts of the proposer: what it is shown of examples and of past instructions, and how its answers are cleaned.
// After DSPy's propose/utils.py.

import type { Example, Module, Signature } from '../program'
import { fieldsOf } from '../program'
import { pyStr } from '../program/python-text'

/** Models like to begin with "Instruction:" or "**New instruction:**": up to five words and a colon at the start go, and quotes around all. */
export function stripPrefix(text: string): string {
  const word = String.raw`[\p{L}\p{N}_'\-]+`
  const prefix = new RegExp(String.raw`^[*\s]*(?:(?:${word}\s+){0,4}${word}):\s*`, 'u')
  return text.replace(prefix, '').replace(/^"+|"+$/g, '')
}

/** One line a field: `Question: What is …`. */
export function exampleText(signature: Signature, example: object): string {
  const fields = fieldsOf(example)
  return signature.fields.map(({ name, prefix }) => `${prefix} ${pyStr(fields[name] ?? null)}`).join('\n')
}

/** Examples as Python prints a list of them; input keys in alphabetical order. */
export function examplesText(examples: readonly Example[]): string {
  const sorted = (keys: string) =>
    keys
      .split(',')
      .map((key) => key.trim())
      .sort()
      .join(', ')
  const text = `[${examples.map(String).join(', ')}]`
  return text.replace(/input_keys=\{([^}]+)\}/g, (_, keys: string) => `input_keys={${sorted(keys)}}`)
}

/** `Predict(question) -> answer`. */
export function moduleText(predictor: {
  readonly signature: Signature
  readonly constructor: { readonly name: string }
}): string {
  const { inputFields, outputFields } = predictor.signature
  const names = (fields: typeof inputFields) => fields.map(({ name }) => name).join(', ')
  return `${predictor.constructor.name}(${names(inputFields)}) -> ${names(outputFields)}`
}

/** An instruction of a predictor with the score it reached. */
export interface ScoredInstruction {
  readonly instruction: string
  readonly score: number
}

/** The best instructions so far with their mean scores, the best one last. */
export function historyText(history: readonly ScoredInstruction[], most: number): string {
  const scores = new Map<string, number[]>()
  for (const { instruction, score } of history) scores.set(instruction, [...(scores.get(instruction) ?? []), score])
  return [...scores]
    .map(([instruction, all]) => ({ instruction, mean: all.reduce((sum, score) => sum + score, 0) / all.length }))
    .sort((a, b) => b.mean - a.mean)
    .slice(0, most)
    .reverse()
    .map(({ instruction, mean }) => `${instruction} | Score: ${pyStr(mean)}\n\n`)
    .join('')
}

/** What the proposer is told of a program: the signatures of its predictors, then the source of its class and of the modules in it. */
export function programSource(program: Module): string {
  const signatures = program.namedPredictors().map(([name, { signature }]) => signatureSource(name, signature))
  const classes = new Set<string>()
  const collect = (module: Module): void => {
    for (const part of partsOf(module)) collect(part)
    if (!BUILT_IN.includes(module.constructor.name)) classes.add(String(module.constructor))
  }
  collect(program)
  return [...signatures, ...classes].join('\n\n')
}

/** Modules whose code says nothing about the task. */
const BUILT_IN = ['Predict', 'ChainOfThought']

function partsOf(module: Module): Module[] {
  const isModule = (value: unknown): value is Module =>
    typeof value === 'object' && value !== null && 'namedPredictors' in value && 'forward' in value
  return Object.values(module).flatMap((value) => {
    if (isModule(value)) return [value]
    if (typeof value !== 'object' || value === null) return []
    return Object.values(value).filter(isModule)
  })
}

function signatureSource(name: string, signature: Signature): string {
  const fields = signature.fields.map((field) => `    ${field.role} ${field.name}: ${field.desc}`)
  return [`${name} = ${signature}`, `    instructions: ${signature.instructions}`, ...fields].join('\n')
}
