// A saved policy by name: JOB@CHECKPOINT, where CHECKPOINT is a checkpoint's own name, `best` or `last`.

import type { CheckpointRecord } from '../protocol'

export interface CheckpointName {
  readonly job: string
  readonly checkpoint: string
}

/** Null for a name without "@": a base model or a job. */
export function parseCheckpointName(name: string): CheckpointName | null {
  const at = name.lastIndexOf('@')
  return at <= 0 ? null : { job: name.slice(0, at), checkpoint: name.slice(at + 1) }
}

/** The checkpoint that `name` stands for among those of a job, oldest first; null when there is none. A checkpoint of this very name goes before `best` and `last`. */
export function findCheckpoint(checkpoints: readonly CheckpointRecord[], name: string): CheckpointRecord | null {
  const named = checkpoints.find((checkpoint) => checkpoint.checkpoint_name === name)
  if (named) return named
  if (name === 'last') return checkpoints.at(-1) ?? null
  return name === 'best' ? bestCheckpoint(checkpoints) : null
}

/**
 * The one with the highest validation score, as clients note it in the metadata; of equal ones the oldest. Null when none was scored.
 * What an interruption left carries the score of the checkpoint before it, so it is not looked at.
 */
export function bestCheckpoint(checkpoints: readonly CheckpointRecord[]): CheckpointRecord | null {
  let best: CheckpointRecord | null = null
  for (const checkpoint of checkpoints) {
    const score = scoreOf(checkpoint)
    if (score === null || checkpoint.checkpoint_name === 'interrupted') continue
    if (best === null || score > scoreOf(best)!) best = checkpoint
  }
  return best
}

function scoreOf({ metadata }: CheckpointRecord): number | null {
  const score = metadata?.['score']
  return typeof score === 'number' && Number.isFinite(score) ? score : null
}

/** What a job has that can be asked for, for a message. */
export function checkpointList(checkpoints: readonly CheckpointRecord[]): string {
  if (checkpoints.length === 0) return 'It has no checkpoints.'
  const names = checkpoints.map(({ checkpoint_name }) => checkpoint_name)
  return `Its checkpoints: ${[...names, 'last', ...(bestCheckpoint(checkpoints) ? ['best'] : [])].join(', ')}.`
}
