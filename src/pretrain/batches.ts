// Step s → its documents → token sequences. Everything follows from the step's number, so a run can go on at any step.

import type { TrainSequence } from '../engine/engine'
import type { Message } from '../protocol'
import type { BpeEncoder } from './encoder'

/** 'single': one question and its answer; 'demos': answered questions before it, as few-shot prompts have them. */
export type DocumentKind = 'single' | 'demos'

/** Documents by index; the same index gives the same document. */
export type DocumentSource = (index: number, kind: DocumentKind) => { readonly messages: readonly Message[] }

export interface Batch {
  readonly sequences: readonly TrainSequence[]
  /** Assistant tokens: what the loss is the mean of. */
  readonly trainedTokens: number
}

/** Every so many steps the batch is of documents with demonstrations, half as many as they are longer. */
const DEMOS_EVERY = 4
/** Documents from here on are for measuring; no run trains on so many. */
const HELD_OUT_FROM = 2 ** 30

/** The documents of step `step` (from 0). */
export function stepDocuments(
  step: number,
  batch: number,
): { readonly kind: DocumentKind; readonly first: number; readonly count: number } {
  const demoSteps = Math.floor(step / DEMOS_EVERY)
  if (step % DEMOS_EVERY === DEMOS_EVERY - 1) {
    const count = Math.max(1, batch >> 1)
    return { kind: 'demos', first: demoSteps * count, count }
  }
  return { kind: 'single', first: (step - demoSteps) * batch, count: batch }
}

export function stepBatch(step: number, batch: number, from: { documents: DocumentSource; encoder: BpeEncoder }): Batch {
  const { kind, first, count } = stepDocuments(step, batch)
  return makeBatch(
    Array.from({ length: count }, (_, i) => from.documents(first + i, kind)),
    from.encoder,
  )
}

/** Documents that no step trains on: `count` single ones and a quarter as many with demonstrations. */
export function heldOutBatch(count: number, from: { documents: DocumentSource; encoder: BpeEncoder }): Batch {
  const take = (kind: DocumentKind, length: number) => Array.from({ length }, (_, i) => from.documents(HELD_OUT_FROM + i, kind))
  return makeBatch([...take('single', count), ...take('demos', Math.ceil(count / 4))], from.encoder)
}

function makeBatch(documents: readonly { readonly messages: readonly Message[] }[], encoder: BpeEncoder): Batch {
  const sequences = documents.flatMap(({ messages }) => documentSequences(messages, encoder))
  return { sequences, trainedTokens: sequences.reduce((sum, { completion }) => sum + completion.length, 0) }
}

/**
 * One sequence for each assistant turn: all before it as the prompt, through `<|im_start|>assistant\n`; the turn through `<|im_end|>\n` as
 * what is learned. Turns of one document share their beginnings, which the engine computes once.
 */
export function documentSequences(messages: readonly Message[], encoder: BpeEncoder): TrainSequence[] {
  const [start, end] = [encoder.specialId('<|im_start|>'), encoder.specialId('<|im_end|>')]
  const afterEnd = encoder.encode('\n')
  const before: number[] = []
  const sequences: TrainSequence[] = []
  for (const { role, content } of messages) {
    if (role === 'assistant') {
      before.push(start, ...encoder.encode('assistant\n'))
      const completion = [...encoder.encode(content), end, ...afterEnd]
      sequences.push({ prompt: [...before], completion })
      before.push(...completion)
    } else before.push(start, ...encoder.encode(`${role}\n${content}`), end, ...afterEnd)
  }
  return sequences
}

/** Weighted cross-entropy as the engine takes it: each of N assistant tokens counts -1/N. */
export function meanCrossEntropy({ trainedTokens }: Batch): { dLogprobs: Float32Array } {
  return { dLogprobs: new Float32Array(trainedTokens).fill(-1 / trainedTokens) }
}
