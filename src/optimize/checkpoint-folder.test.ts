import { existsSync, mkdirSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { CheckpointFolder } from './checkpoint-folder'

const fresh = () => mkdtempSync(join(tmpdir(), 'arbor-checkpoint-'))

/** A saved policy with one file. */
function policy(text: string): string {
  const dir = fresh()
  writeFileSync(join(dir, 'adapter'), text)
  return dir
}

describe('CheckpointFolder', () => {
  it.each(['single-best', 'improvements', 'none'])("%s is Arbor's mode, no folder", async (mode) => {
    const folder = new CheckpointFolder(mode)
    await folder.start('grpo:a')
    await folder.copy({ model_checkpoint_last: '/nowhere' })
    expect(folder.path).toBeNull()
    expect(existsSync(mode)).toBe(false)
    await expect(folder.jobId()).rejects.toThrow(/resume: true needs a checkpoint folder.*or give the job's id/)
  })

  it('notes its run, the latest one', async () => {
    const folder = new CheckpointFolder(join(fresh(), 'not/yet/there'))
    await expect(folder.jobId()).rejects.toThrow(/no run to resume in .*not\/yet\/there.*Compile once without resume/)
    await folder.start('grpo:first')
    await folder.start('grpo:second')
    expect(await folder.jobId()).toBe('grpo:second')
    writeFileSync(join(folder.path!, 'run.json'), '{"job')
    await expect(folder.jobId()).rejects.toThrow(/unreadable/)
  })

  it('copies the best and the last policy, and replaces older ones whole', async () => {
    const folder = new CheckpointFolder(fresh())
    mkdirSync(join(folder.path!, 'last'))
    writeFileSync(join(folder.path!, 'last', 'stale'), '')
    await folder.copy({
      model_checkpoint_last: policy('last'),
      model_checkpoint_step_3: policy('three'),
      interrupted: policy('i'),
    })
    expect(readFileSync(join(folder.path!, 'last/adapter'), 'utf8')).toBe('last')
    expect(existsSync(join(folder.path!, 'last/stale'))).toBe(false)
    expect(existsSync(join(folder.path!, 'best'))).toBe(false)
    await folder.copy({ model_checkpoint_best: policy('best'), model_checkpoint_last: policy('later') })
    expect(readFileSync(join(folder.path!, 'best/adapter'), 'utf8')).toBe('best')
    expect(readFileSync(join(folder.path!, 'last/adapter'), 'utf8')).toBe('later')
  })
})
