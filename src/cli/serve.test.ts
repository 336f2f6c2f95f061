// The server as a process: how it starts, what it says, and that it never outlives its owner nor loses a run.

import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, expect, it } from 'vitest'
import { adapterFolders } from './serve'

const root = join(__dirname, '../..')
const cli = join(root, 'dist/src/cli/main.js')
const model = join(root, 'test/golden/gguf/tiny-llama.gguf')
const children: ChildProcess[] = []

interface Served {
  readonly child: ChildProcess
  readonly storage: string
  /** From the ready line; rejects with stderr when the process ends before it. */
  readonly ready: Promise<string>
  readonly exit: Promise<number | null>
  stderr(): string
}

function serve(...args: string[]): Served {
  const storage = mkdtempSync(join(tmpdir(), 'arbor-serve-'))
  const all = [cli, 'serve', '--device', 'tfjs', '--storage', storage, '--ready-line', ...args]
  const child = spawn(process.execPath, all, { stdio: ['pipe', 'pipe', 'pipe'] })
  children.push(child)
  let err = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => (err += text))
  const exit = new Promise<number | null>((resolve) => child.once('close', resolve))
  const ready = new Promise<string>((resolve, reject) => {
    child.stdout.setEncoding('utf8').on('data', (text: string) => resolve((JSON.parse(text) as { base_url: string }).base_url))
    void exit.then(() => reject(new Error(err)))
  })
  ready.catch(() => {})
  return { child, storage, ready, exit, stderr: () => err }
}

async function post<T>(url: string, body: object): Promise<T> {
  const response = await fetch(url, { method: 'POST', body: JSON.stringify(body) })
  if (!response.ok) throw new Error(await response.text())
  return (await response.json()) as T
}

/** Posts one step that is trained while the server goes on. */
async function trainOneStep(baseUrl: string): Promise<void> {
  const lora_config = { r: 2, lora_alpha: 4, target_modules: 'all-linear', lora_dropout: 0 }
  const trainer_config = { num_generations: 2, lora_config, beta: 0, mask_truncated_completions: false }
  const { job_id } = await post<{ job_id: string }>(`${baseUrl}fine_tuning/grpo/initialize`, { model, trainer_config })
  const messages = [{ role: 'user', content: 'a' }]
  const answer = await post<{ id: string; choices: { message: { content: string } }[] }>(`${baseUrl}chat/completions`, {
    model: job_id,
    messages,
    n: 2,
    max_tokens: 4,
  })
  const batch = answer.choices.map(({ message }, i) => {
    return {
      messages,
      completion: { role: 'assistant', content: message.content },
      reward: i,
      completion_id: `${answer.id}#${i}`,
    }
  })
  await post(`${baseUrl}fine_tuning/grpo/step`, { job_id, model: job_id, batch_id: 0, batch })
}

function checkpoints(storage: string): string[] {
  const [run] = readdirSync(join(storage, 'runs'))
  return readdirSync(join(storage, 'runs', run!, 'checkpoints'))
}

describe.skipIf(!existsSync(cli))('arbor-nb serve', () => {
  afterEach(() => {
    for (const child of children.splice(0)) child.kill('SIGKILL')
  })

  it('ends when its owner is gone, with a checkpoint of what ran', async () => {
    const server = serve('--model', model, '--owner-pipe', '--port', '0')
    const baseUrl = await server.ready
    expect(await (await fetch(`${baseUrl}health`)).json()).toMatchObject({ status: 'ok', device: 'tfjs' })
    await trainOneStep(baseUrl)
    server.child.stdin!.end()
    expect(await server.exit).toBe(0)
    expect(checkpoints(server.storage)).toEqual(['interrupted'])
  })

  it('ends the same way on a signal, and keeps its port for itself before', async () => {
    const server = serve('--model', model, '--port', '0')
    const port = new URL(await server.ready).port
    const second = serve('--model', model, '--port', port)
    expect(await second.exit).toBe(2)
    expect(second.stderr()).toContain(`Port ${port} is taken`)
    await trainOneStep(await server.ready)
    server.child.kill('SIGTERM')
    expect(await server.exit).toBe(0)
    expect(checkpoints(server.storage)).toEqual(['interrupted'])
  })

  it('without a model loads the one that the first request names, and saves its jobs as well', async () => {
    const server = serve('--owner-pipe', '--port', '0')
    const baseUrl = await server.ready
    expect(await (await fetch(`${baseUrl}models`)).json()).toEqual({ object: 'list', data: [] })
    await trainOneStep(baseUrl)
    server.child.stdin!.end()
    expect(await server.exit).toBe(0)
    expect(checkpoints(server.storage)).toEqual(['interrupted'])
  })

  it('says what is wrong with its arguments or its model', async () => {
    const fails = async (...args: string[]) => {
      const server = serve(...args)
      return `${await server.exit} ${server.stderr()}`
    }
    expect(await fails('--model', model, '--prot', '1')).toMatch(/^2 .*--prot.*--port/)
    expect(await fails('--model', model, '--port', 'x')).toMatch(/^2 --port x/)
    expect(await fails('--model', model, '--memory', '0.1')).toMatch(/^2 --memory 0.1: a number of at least 0.5/)
    expect(await fails('--model', model, '--gpus', '0')).toMatch(/^2 --gpus 0: a whole number of at least 1/)
    expect(await fails('--model', model, '--gpus', '2')).toMatch(/^2 2 GPUs are asked for, and the device "tfjs"/)
    expect(await fails('--model', '/no/such/model')).toMatch(/^1 .*\/no\/such\/model/)
  })
})

describe('--adapter NAME=FOLDER', () => {
  const folder = mkdtempSync(join(tmpdir(), 'arbor-adapter-'))

  it('may be given several times, and needs the model that it stands on', () => {
    const given = adapterFolders([`mine=${folder}`, `org/other.v2=${folder}`], 'arbor-tiny')
    expect([...given]).toEqual([
      ['mine', folder],
      ['org/other.v2', folder],
    ])
    expect(adapterFolders([], undefined).size).toBe(0)
    expect(() => adapterFolders([`mine=${folder}`], undefined)).toThrow(/--adapter needs the --model/)
  })

  it.each([
    [['mine'], /--adapter mine: NAME=FOLDER is needed/],
    [['grpo:a@b=/tmp'], /NAME=FOLDER is needed/],
    [['mine=/no/such/folder'], /there is no folder \/no\/such\/folder/],
    [['mine=/', 'mine=/'], /--adapter mine is given twice/],
  ])('%j is not understood', (given, message) => {
    expect(() => adapterFolders(given, 'arbor-tiny')).toThrow(message)
  })
})
