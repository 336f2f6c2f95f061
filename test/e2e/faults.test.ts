// Processes that die: nothing is lost but the step in hand, nothing stays behind, and the error says what to do.

import { type ChildProcess, spawn } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { ProtocolError } from '../../src/errors'
import type { ArborGRPO } from '../../src/optimize'
import type { Loose } from '../../src/program'
import {
  adapterBytes,
  CLI,
  compile,
  exampleOf,
  failureOf,
  freshFolder,
  gone,
  LIBRARY,
  MODEL,
  recordsOnDisk,
  runFolder,
  serve,
  sleep,
  timeless,
  vowels,
  whyNot,
} from './tiny'

const STEPS = { numTrainSteps: 6, numStepsForVal: 2 }
const children: ChildProcess[] = []
let missing: string | null
beforeAll(async () => {
  missing = await whyNot()
})
beforeEach(({ skip }) => skip(missing !== null, missing ?? ''))
afterEach(() => {
  for (const child of children.splice(0)) child.kill('SIGKILL')
})

/** A process whose lines can be waited for. */
function start(args: readonly string[]) {
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'] })
  children.push(child)
  let text = ''
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (chunk: string) => (text += chunk))
  const exit = new Promise<{ code: number | null; signal: string | null }>((resolve) =>
    child.once('close', (code, signal) => resolve({ code, signal })),
  )
  const line = async (pattern: RegExp): Promise<RegExpMatchArray> => {
    for (let wait = 0; wait < 400; wait++) {
      const found = text.match(pattern)
      if (found) return found
      if (child.exitCode !== null) break
      await sleep(50)
    }
    throw new Error(`no line like ${pattern} in:\n${text}`)
  }
  return { child, exit, line, text: () => text }
}

function checkpointsOf(storage: string, jobId: string): string[] {
  return readdirSync(join(runFolder(storage, jobId), 'checkpoints'))
}

describe('the server is killed in the middle of compile', () => {
  it('an error within seconds says what to do; what was saved can be read; a new server goes on from there', async () => {
    const storagePath = freshFolder()
    const checkpoint = freshFolder()
    const valset = [exampleOf('one')]
    const first = await serve({ storagePath })
    let compiler: ArborGRPO | null = null
    let killed = 0
    let calls = 0
    const metric = (example: Loose, prediction: Loose) => {
      if (++calls === 12 * 3 + 2 + 6) {
        // within the rollouts of step 4: the policy after step 2 is saved, that after step 3 is not
        process.kill(first.pid, 'SIGKILL')
        killed = Date.now()
      }
      return vowels(example, prediction)
    }
    const options = { ...STEPS, checkpoint, numThreads: 2 }
    const error = await failureOf(compile(first, { ...options, metric }, { valset, watch: (made) => (compiler = made) }))
    expect((Date.now() - killed) / 1000).toBeLessThan(10)
    expect(error).toBeInstanceOf(ProtocolError)
    expect(error.message).toMatch(/server.*(stopped|went away).*start.*resume/i)
    const run = compiler!.run!
    expect(run.records.map((record) => record.step)).toEqual([1, 2, 3])
    expect(recordsOnDisk(storagePath, run.jobId)).toEqual(run.records)
    expect(adapterBytes(join(runFolder(storagePath, run.jobId), 'checkpoints/model_checkpoint_last')).length).toBeGreaterThan(
      1000,
    )

    const second = await serve({ storagePath })
    try {
      const whole = (await compile(second, STEPS, { valset })).compiler.run!
      const { compiler: resumed } = await compile(second, options, { valset, resume: true })
      expect(resumed.run!.jobId).toBe(run.jobId)
      expect(resumed.run!.records.map(timeless)).toEqual(whole.records.map(timeless))
      const last = (jobId: string) => adapterBytes(join(runFolder(storagePath, jobId), 'checkpoints/checkpoint_final'))
      expect(last(run.jobId)).toEqual(last(whole.jobId))
    } finally {
      await second.close()
    }
  })
})

describe('the notebook is killed in the middle of compile', () => {
  it('the server saves the run and ends by itself within seconds', async () => {
    const storagePath = freshFolder()
    const client = start([join(__dirname, 'client.mjs'), LIBRARY, MODEL, storagePath])
    const server = Number((await client.line(/server (\d+)/))[1])
    const jobId = (await client.line(/step 3 (\S+)/))[1]!
    client.child.kill('SIGKILL')
    await gone(server, 10)
    const records = recordsOnDisk(storagePath, jobId)
    expect(records.length).toBeGreaterThanOrEqual(3)
    expect(checkpointsOf(storagePath, jobId)).toEqual(['interrupted'])
    expect(adapterBytes(join(runFolder(storagePath, jobId), 'checkpoints/interrupted')).length).toBeGreaterThan(1000)
  })
})

describe('arbor-nb serve and Ctrl-C', () => {
  it('checkpoints the job that trains, tells its client, and ends with 0', async () => {
    const storagePath = freshFolder()
    const server = start([CLI, 'serve', '--model', MODEL, '--device', 'cpu', '--port', '0', '--storage', storagePath])
    const baseUrl = (await server.line(/Serving at (\S+)/))[1]!
    const info = { baseUrl, pid: server.child.pid! } as Parameters<typeof compile>[0]
    let compiler: ArborGRPO | null = null
    let calls = 0
    const metric = (example: Loose, prediction: Loose) => {
      if (++calls === 30) server.child.kill('SIGINT')
      return vowels(example, prediction)
    }
    const options = { numTrainSteps: 1000, numStepsForVal: 1000, metric }
    const error = await failureOf(compile(info, options, { watch: (made) => (compiler = made) }))
    expect(error.message).toMatch(/start.*resume/is)
    expect(await server.exit).toEqual({ code: 0, signal: null })
    expect(checkpointsOf(storagePath, compiler!.run!.jobId)).toEqual(['interrupted'])
    expect(recordsOnDisk(storagePath, compiler!.run!.jobId).length).toBeGreaterThanOrEqual(2)
  })

  it('before the model is loaded it ends at once', async () => {
    const server = start([CLI, 'serve', '--model', MODEL, '--device', 'cpu', '--port', '0', '--storage', freshFolder()])
    await server.line(/Loading/)
    server.child.kill('SIGINT')
    expect([0, 130]).toContain((await server.exit).code)
  })
})
