import { describe, expect, it } from 'vitest'
import type { CheckpointRecord } from '../protocol'
import { bestCheckpoint, checkpointList, findCheckpoint, parseCheckpointName } from './checkpoint-name'

function checkpoint(name: string, step: number, score?: unknown): CheckpointRecord {
  const metadata = score === undefined ? null : { score }
  return { checkpoint_name: name, checkpoint_dir: `/${name}`, global_step: step, requested: true, metadata, timestamp: step }
}

const CHECKPOINTS = [
  checkpoint('model_checkpoint_best', 4, 71.5),
  checkpoint('model_checkpoint_last', 6, 60),
  checkpoint('interrupted', 7, 90), // carries the score of another
  checkpoint('checkpoint_final', 9),
]

describe('JOB@CHECKPOINT', () => {
  it('is cut at the last @; without one it is no checkpoint', () => {
    expect(parseCheckpointName('grpo:m:calm-fox:20261122@best')).toEqual({ job: 'grpo:m:calm-fox:20261122', checkpoint: 'best' })
    expect(parseCheckpointName('odd@place/model@last')).toEqual({ job: 'odd@place/model', checkpoint: 'last' })
    for (const name of ['arbor-tiny', '@best']) expect(parseCheckpointName(name)).toBeNull()
  })

  it('finds a checkpoint by its own name, the last, and the best by its score', () => {
    const found = (name: string) => findCheckpoint(CHECKPOINTS, name)?.checkpoint_name
    expect(['model_checkpoint_last', 'last', 'best', 'nothing'].map(found)).toEqual([
      ...['model_checkpoint_last', 'checkpoint_final', 'model_checkpoint_best', undefined],
    ])
    const named = [...CHECKPOINTS, checkpoint('best', 10, 1)]
    expect(findCheckpoint(named, 'best')!.global_step).toBe(10)
  })

  it('the best is the oldest of equal ones, a score of 0 counts, and without scores there is none', () => {
    expect(bestCheckpoint([checkpoint('a', 1, 0), checkpoint('b', 2, -1), checkpoint('c', 3, 0)])!.checkpoint_name).toBe('a')
    expect(bestCheckpoint([checkpoint('a', 1, 'high'), checkpoint('b', 2, Number.NaN), checkpoint('c', 3)])).toBeNull()
    expect(findCheckpoint([], 'last')).toBeNull()
  })

  it('says what a job has', () => {
    expect(checkpointList([])).toBe('It has no checkpoints.')
    expect(checkpointList([checkpoint('a', 1)])).toBe('Its checkpoints: a, last.')
    expect(checkpointList(CHECKPOINTS.slice(0, 1))).toBe('Its checkpoints: model_checkpoint_best, last, best.')
  })
})
