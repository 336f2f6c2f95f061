// The command as a process: what it leaves behind, that an interruption changes nothing, and what it refuses.

import { spawn } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import type { PretrainStep } from '../pretrain/run-folder'

const cli = join(__dirname, '../../dist/src/cli/main.js')
const work = mkdtempSync(join(tmpdir(), 'arbor-pretrain-'))
afterAll(() => rmSync(work, { recursive: true }))

const STEPS = 40
const MINI = ['--size', 'mini', '--steps', String(STEPS), '--batch', '32', '--checkpoint-every', '6']

interface Ended {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

/** Runs the command (on one thread: other tests run beside it); `kill` is sent once `after` more steps are written. */
function pretrain(args: readonly string[], kill?: { signal: NodeJS.Signals; out: string; after: number }): Promise<Ended> {
  const child = spawn(process.execPath, [cli, 'pretrain', '--threads', '1', ...args], { stdio: ['ignore', 'pipe', 'pipe'] })
  let [stdout, stderr] = ['', '']
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text))
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text))
  if (kill) {
    const from = steps(kill.out).length
    const watch = setInterval(() => {
      if (steps(kill.out).length < from + kill.after) return
      clearInterval(watch)
      child.kill(kill.signal)
    }, 2)
    child.once('close', () => clearInterval(watch))
  }
  return new Promise((resolve) => child.once('close', (code) => resolve({ code, stdout, stderr })))
}

function steps(out: string): PretrainStep[] {
  const path = join(out, 'steps.jsonl')
  if (!existsSync(path)) return []
  const lines = readFileSync(path, 'utf8').split('\n')
  return lines.slice(0, -1).map((line) => JSON.parse(line) as PretrainStep)
}

const weights = (out: string) => readFileSync(join(out, 'model', 'model.safetensors'))

describe.skipIf(!existsSync(cli))('arbor-nb pretrain', () => {
  const whole = join(work, 'whole')

  it('ends with a model folder, a line a step and a page with the loss, which has fallen', async () => {
    const { code, stdout, stderr } = await pretrain([...MINI, '--out', whole])
    expect(code, stderr).toBe(0)
    expect(stdout.trim()).toBe(join(whole, 'model'))
    expect(readdirSync(join(whole, 'model')).sort()).toEqual([
      'README.md',
      'config.json',
      'generation_config.json',
      'model.safetensors',
      'pretraining.json',
      'tokenizer.json',
      'tokenizer_config.json',
    ])
    const lines = steps(whole)
    expect(lines.map(({ step }) => step)).toEqual(Array.from({ length: STEPS }, (_, i) => i + 1))
    expect(lines[0]!.loss).toBeCloseTo(Math.log(512), 0) // it knows nothing yet: all tokens are alike
    expect(lines.at(-1)!.loss).toBeLessThan(4.9)
    for (const { tokens, tokensUnshared, trainedTokens } of lines) {
      expect(tokens).toBeLessThan(tokensUnshared)
      expect(trainedTokens).toBeLessThan(tokens)
    }
    expect(lines.filter(({ heldOutLoss }) => heldOutLoss !== undefined).map(({ step }) => step)).toEqual([
      6, 12, 18, 24, 30, 36, 40,
    ])
    expect(readFileSync(join(whole, 'loss.html'), 'utf8')).toMatch(/<svg[\s\S]*Pretraining loss[\s\S]*<\/table>/)
    expect(readFileSync(join(whole, 'model', 'README.md'), 'utf8')).toContain('license: apache-2.0')
  }, 60_000)

  it('killed, gone on with, ended with Ctrl-C and gone on with again it ends at the same bytes', async () => {
    const out = join(work, 'interrupted')
    const killed = await pretrain([...MINI, '--out', out], { signal: 'SIGKILL', out, after: 9 })
    expect(killed.code).toBeNull()
    expect(existsSync(join(out, 'model'))).toBe(false)

    const ended = await pretrain(['--out', out, '--resume', '--checkpoint-every', '6'], { signal: 'SIGINT', out, after: 4 })
    expect(ended.stderr).toMatch(/Going on after step (6|12) of 40/)
    expect(ended.code, ended.stderr).toBe(130)
    const done = steps(out).length
    expect(done).toBeLessThan(STEPS)
    expect(readdirSync(join(out, 'checkpoints'))).toContain(`step-${String(done).padStart(6, '0')}`)

    const last = await pretrain(['--out', out, '--resume', '--checkpoint-every', '6'])
    expect(last.code, last.stderr).toBe(0)
    expect(weights(out).equals(weights(whole))).toBe(true)
    const losses = (folder: string) => steps(folder).map(({ loss, gradNorm }) => [loss, gradNorm])
    expect(losses(out)).toEqual(losses(whole))
  }, 120_000)

  it('another seed ends at other weights', async () => {
    const out = join(work, 'seed')
    expect((await pretrain([...MINI, '--seed', '1', '--out', out])).code).toBe(0)
    expect(weights(out).equals(weights(whole))).toBe(false)
  }, 60_000)

  it('begins with another model’s weights and tokenizer, and says so', async () => {
    const out = join(work, 'from')
    const { code, stderr } = await pretrain([
      ...MINI,
      ...['--from', join(whole, 'model'), '--mix', 'control', '--steps', '2', '--out', out],
    ])
    expect(code, stderr).toBe(0)
    const bytes = (path: string) => readFileSync(path)
    expect(bytes(join(out, 'base', 'tokenizer.json'))).toEqual(bytes(join(whole, 'model', 'tokenizer.json')))
    expect(steps(out)[0]!.loss).toBeLessThan(steps(whole)[0]!.loss - 0.3) // the untrained model knows nothing
    expect(readFileSync(join(out, 'model', 'README.md'), 'utf8')).toContain('began with the weights of `model`')
    const [none, size] = await Promise.all([
      pretrain([...MINI, '--from', work, '--out', join(work, 'none')]),
      pretrain(['--size', '0.6M', '--from', join(whole, 'model'), '--out', join(work, 'none')]),
    ])
    expect(none.stderr).toContain('no model to begin with')
    expect(size.stderr).toMatch(/vocab_size 512, a run of this size 2048/)
    expect(existsSync(join(work, 'none'))).toBe(false)
  }, 90_000)

  it('refuses what cannot be meant, and says what to do', async () => {
    const full = join(work, 'full')
    const [size, taken, nothing, finished, other, both] = await Promise.all([
      pretrain(['--size', '1.5', '--out', full]),
      pretrain([...MINI, '--out', whole]),
      pretrain(['--out', full, '--resume']),
      pretrain(['--out', whole, '--resume']),
      pretrain(['--out', whole, '--resume', '--seed', '3']),
      pretrain(['--out', whole, '--resume', '--force']),
    ])
    for (const { code, stderr } of [size, taken, nothing, finished, other, both]) expect(code, stderr).toBe(2)
    expect(size.stderr).toContain('There is no size "1.5"')
    expect(taken.stderr).toMatch(/holds a finished run\. Begin again in its place: --force/)
    expect(nothing.stderr).toContain('no pretraining run to go on with')
    expect(finished.stderr).toContain('this run is finished')
    expect(other.stderr).toContain('begun with seed 0')
    expect(both.stderr).toContain('--resume and --force')
    expect(existsSync(full)).toBe(false)
  }, 60_000)

  it('writes into no folder that holds something else, and --force takes away nothing but a run', async () => {
    const out = mkdtempSync(join(work, 'mine-'))
    writeFileSync(join(out, 'letter.txt'), 'dear')
    const { code, stderr } = await pretrain([...MINI, '--out', out, '--force'])
    expect(code).toBe(2)
    expect(stderr).toContain('is not empty')
    expect(readdirSync(out)).toEqual(['letter.txt'])
  }, 30_000)
})
