import { mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { freshStorage, writeRun } from '../runs/runs.fixture'
import { initialize, sampledGroup, TRAINER_CONFIG, testApp } from '../server/fixture'
import { main } from './main'
import { sparkline } from './runs-text'

let out = ''
let err = ''
beforeEach(() => {
  out = err = ''
  vi.spyOn(process.stdout, 'write').mockImplementation((text) => Boolean((out += String(text))))
  vi.spyOn(process.stderr, 'write').mockImplementation((text) => Boolean((err += String(text))))
})
afterEach(() => {
  vi.restoreAllMocks()
})

const runs = (storage: string, ...argv: string[]) => main(['runs', ...argv, '--storage', storage])

/** A run that the server itself trained: two steps, one checkpoint with a score. */
async function trainedStorage(): Promise<{ storage: string; id: string }> {
  const app = await testApp({ storage: mkdtempSync(join(tmpdir(), 'arbor-runs-')) })
  const { job_id } = await initialize(app, { run_name: 'mine', trainer_config: { ...TRAINER_CONFIG, report_to: 'tensorboard' } })
  for (const validation_score of [40, null]) {
    const { pending_batch_ids } = await app.call<{ pending_batch_ids: number[] }>('/fine_tuning/grpo/status', { job_id })
    const batch = await sampledGroup(app, job_id, 'why?')
    const body = { job_id, model: job_id, batch_id: pending_batch_ids[0], batch, metrics: { validation_score } }
    await app.call('/fine_tuning/grpo/step', body)
  }
  await app.call('/fine_tuning/grpo/checkpoint', { job_id, checkpoint_name: 'best', metadata: { score: 62.5 } })
  await app.call('/fine_tuning/grpo/terminate', { job_id })
  return { storage: app.storage, id: job_id }
}

describe('arbor-nb runs', () => {
  it('lists what the server trained', async () => {
    const { storage, id } = await trainedStorage()
    expect(await runs(storage)).toBe(0)
    expect(out.split('\n')[0]).toMatch(/^RUN +STATE +MODEL +STARTED +STEPS +TIME +MEASURE +VALIDATION$/)
    expect(out.split('\n')[1]).toMatch(
      new RegExp(`^${id} +succeeded +mock/tiny +20.* +2 +.* s +reward 0\\.5 → 0\\.5 +▄▄ +best 62\\.5 %$`),
    )
    out = ''
    expect(await runs(storage, 'list', '--json')).toBe(0)
    expect(JSON.parse(out)).toMatchObject([{ id, state: 'succeeded', steps: 2, measure: 'reward', best_validation: 62.5 }])
  })

  it('shows one: options, validations, files, checkpoints and steps', async () => {
    const { storage, id } = await trainedStorage()
    expect(await runs(storage, 'show', 'mine')).toBe(0)
    expect(out).toMatch(/^ {2}options +num_generations 4, beta 0, learning_rate 0\.001/m)
    expect(out).toMatch(/^ {2}validation +40 % \(step 0\) → 62\.5 % \(step 2\), best 62\.5 % \(step 2\)$/m)
    expect(out).toMatch(/^ {2}reported +tensorboard --logdir .*tensorboard$/m)
    expect(out).toMatch(/^ {2}checkpoint +best \(step 2\)$/m)
    expect(out).toMatch(/^ {2}step +reward/m)
    out = ''
    expect(await runs(storage, 'show', 'last', '--json')).toBe(0)
    const shown = JSON.parse(out) as Record<string, unknown>
    expect(shown).toMatchObject({ id, options: { beta: 0 }, environment: { seed: 0 }, steps: [{ step: 1 }, { step: 2 }] })
  })

  it('sets runs side by side, with the options that differ', async () => {
    const storage = freshStorage()
    const steps = [{ reward: 0.25 }, { reward: 0.75 }]
    writeRun(storage, { id: 'grpo:tiny:slow:1', steps, options: { learning_rate: 1e-5, beta: 0 } })
    writeRun(storage, { id: 'grpo:tiny:fast:1', steps: [...steps, { reward: 0.5 }], options: { learning_rate: 1e-3, beta: 0 } })
    expect(await runs(storage, 'compare', 'slow', 'fast')).toBe(0)
    expect(out).toMatch(/^learning_rate +0\.00001 +0\.001$/m)
    expect(out).not.toMatch(/^beta/m)
    expect(out).toMatch(/^reward, best +0\.75 +0\.75$/m)
    expect(out).toMatch(/▁█ +▁█▅/)
    out = ''
    expect(await runs(storage, 'compare', 'slow', 'fast', '--json', '--measure', 'grad_norm')).toBe(0)
    expect(JSON.parse(out)).toMatchObject({
      runs: [{ measure: 'grad_norm', best: null }, {}],
      differences: { learning_rate: ['0.00001', '0.001'] },
    })
  })

  it('says what is wrong with what was asked', async () => {
    const storage = freshStorage()
    expect(await runs(storage)).toBe(0)
    expect(out).toBe(`No runs in ${storage}.\n`)
    writeRun(storage, { id: 'grpo:tiny:slow:1', steps: [{ reward: 1 }] })
    for (const [argv, message] of [
      [['shwo'], 'Did you mean show?'],
      [['show'], 'takes one run'],
      [['list', 'slow'], 'takes no run'],
      [['compare', 'slow'], 'two runs or more'],
      [['show', 'slwo'], 'Did you mean "slow"?'],
      [['show', 'slow', '--measure', 'rewad'], 'Did you mean "reward"?'],
      [['--limit', 'x'], '--limit x'],
    ] as const) {
      err = ''
      expect(await runs(storage, ...argv), argv.join(' ')).toBe(2)
      expect(err).toContain(message)
    }
  })

  it('lets nothing that others wrote reach the terminal’s controls', async () => {
    const storage = freshStorage()
    const status = { status: 'failed', reason: 'step 1: \x1b[2Jgone\n  state       succeeded', pid: 1 }
    writeRun(storage, { id: 'grpo:tiny:x:1', status })
    expect(await runs(storage, 'show', 'last')).toBe(0)
    expect(out).not.toContain('\x1b')
    expect(out).toMatch(/^ {2}state +failed: step 1: .\[2Jgone. {2}state/m)
  })
})

describe('a sparkline', () => {
  it('goes from the least to the greatest, with a gap where nothing is known', () => {
    expect(sparkline([0, 1, 2, 3, 4, 5, 6, 7], 40)).toBe('▁▂▃▄▅▆▇█')
    expect(sparkline([0, null, 1], 40)).toBe('▁ █')
    expect(sparkline([5, 5], 40)).toBe('▄▄')
    expect(
      sparkline(
        Array.from({ length: 1000 }, (_, i) => i),
        8,
      ),
    ).toBe('▁▂▃▄▅▆▇█')
    expect(sparkline([], 8)).toBe('')
  })
})
