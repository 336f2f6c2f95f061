// Whole exports of a small run: found by name, written, loaded again, compared. Files that are not the policy don't stay.

import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { whyNot } from '../../test/e2e/tiny'
import { type HostTensor, readSafetensors, writeSafetensors } from '../engine/safetensors'
import { readJson } from '../engine/whole-file'
import { ModelError } from '../errors'
import { RunFolder } from '../server/run-folder'
import { BASE, JOB, trainedRun } from './export.fixture'
import { type ExportOptions, exportPolicy } from './export-policy'
import { findExportSource } from './source'

const FULL = 'grpo:tiny-chat:full:20261122'
const folder = mkdtempSync(join(tmpdir(), 'arbor-export-'))
const storage = join(folder, 'storage')
let missing: string | null
beforeAll(async () => {
  missing = await whyNot()
  if (missing !== null) return
  await trainedRun(storage)
  await trainedRun(storage, { full: true, job: FULL })
})
beforeEach(({ skip }) => skip(missing !== null, missing ?? ''))
afterAll(() => rmSync(folder, { recursive: true }))

async function exported(name: string, out: string, options: Partial<ExportOptions> = {}) {
  const source = await findExportSource(name, { storage })
  const given = { source, out: join(folder, out), format: 'safetensors', type: 'f32', device: 'cpu', ...options } as const
  return exportPolicy(given)
}

describe('an export', () => {
  it.each([JOB, FULL])('%s as a merged folder and as a GGUF file is the policy, within rounding', async (job) => {
    const name = job === JOB ? 'lora' : 'full'
    const [merged, gguf, small] = [
      await exported(job, `${name}-merged`),
      await exported(job, `${name}.gguf`, { format: 'gguf' }),
      await exported(job, `${name}-q8.gguf`, { format: 'gguf', type: 'q8_0' }),
    ]
    for (const result of [merged, gguf]) {
      expect(result.largestGap).toBeLessThan(1e-4)
      expect(result).toMatchObject({ sameTop: 1, sameAnswers: result.prompts })
      expect(result.trainedKl).toBeGreaterThan(0.1)
    }
    expect(small.meanKl).toBeGreaterThan(0)
    const files = readdirSync(join(folder, `${name}-merged`))
    expect(files.sort()).toEqual(['config.json', 'model.safetensors', 'tokenizer.json', 'tokenizer_config.json'])
    expect(readdirSync(folder).filter((file) => file.startsWith('.unchecked'))).toEqual([])
  })

  it('the best checkpoint is another policy than the last', async () => {
    await exported(`${JOB}@best`, 'best')
    await exported(`arbor:${JOB}@last`, 'last')
    const [best, last] = ['best', 'last'].map((name) => readFileSync(join(folder, name, 'model.safetensors')))
    expect(best!.equals(last!)).toBe(false)
  })

  it('an adapter is copied as peft has it, with the base where peft finds it, and without the optimizer', async () => {
    const result = await exported(JOB, 'adapter', { format: 'adapter' })
    expect(result).toMatchObject({ largestGap: 0, meanKl: 0 })
    expect(readdirSync(join(folder, 'adapter')).sort()).toEqual(['adapter_config.json', 'adapter_model.safetensors'])
    expect(readJson(join(folder, 'adapter', 'adapter_config.json'))).toMatchObject({ base_model_name_or_path: BASE.path, r: 4 })
    const again = await findExportSource(join(folder, 'adapter'), { storage }) // the base is found by the adapter's own word
    expect(again).toMatchObject({ base: { path: BASE.path }, dir: join(folder, 'adapter') })
    await expect(exported(FULL, 'no-adapter', { format: 'adapter' })).rejects.toThrow(
      /is no adapter: all its weights are its own/,
    )
  })

  it('files that are not the policy are removed, and what stood there stays', async () => {
    const loud = loudBase()
    const source = { name: 'loud', base: loud, dir: null, origin: 'a base beyond the range of f16' }
    const out = join(folder, 'kept')
    mkdirSync(out)
    writeFileSync(join(out, 'mine.txt'), 'mine')
    const writing = exportPolicy({ source, out, format: 'safetensors', type: 'f16', device: 'cpu', force: true })
    await expect(writing).rejects.toThrow(/kept is not the policy: .*What was written has been removed/s)
    await expect(writing).rejects.toBeInstanceOf(ModelError)
    expect(readdirSync(out)).toEqual(['mine.txt'])
    expect(existsSync(join(folder, '.unchecked-kept'))).toBe(false)
    await exportPolicy({ source, out, format: 'safetensors', type: 'bf16', device: 'cpu', force: true })
    expect(existsSync(join(out, 'mine.txt'))).toBe(false)
  })

  it('what lies there already is kept unless --force says otherwise', async () => {
    writeFileSync(join(folder, 'there.gguf'), 'mine')
    await expect(exported(JOB, 'there.gguf', { format: 'gguf' })).rejects.toThrow(/there\.gguf is there already.*--force/)
    expect(readFileSync(join(folder, 'there.gguf'), 'utf8')).toBe('mine')
  })

  it('a type or an ending that can not be meant is told before any work', async () => {
    await expect(exported(JOB, 'x', { type: 'q8_0' })).rejects.toThrow(/takes f32, f16 or bf16; q8_0/)
    await expect(exported(JOB, 'x', { format: 'gguf' })).rejects.toThrow(/ends in \.gguf/)
  })
})

/** The tiny model with an embedding a million times as large: norms make much the same of it, but f16 has no such numbers. */
function loudBase() {
  const path = join(folder, 'loud-base')
  cpSync(BASE.path, path, { recursive: true })
  const file = readSafetensors(join(BASE.path, 'model.safetensors'))
  const tensors = new Map<string, HostTensor>(
    file.names.map((name) => {
      const data = file.read(name)
      return [name, { shape: file.shape(name), data: name.includes('embed') ? data.map((value) => value * 1e6) : data }]
    }),
  )
  file.close()
  writeSafetensors(join(path, 'model.safetensors'), tensors)
  return { name: 'loud', kind: 'folder', path } as const
}

describe('what an export is of', () => {
  const find = (name: string, options = {}) => findExportSource(name, { storage, ...options })

  it('a job, its checkpoints by name, a checkpoint folder, a base', async () => {
    const run = RunFolder.at(storage, JOB)
    expect(await find(JOB)).toMatchObject({
      dir: join(run.path, 'checkpoints', 'model_checkpoint_last'),
      base: { path: BASE.path },
    })
    expect((await find(`${JOB}@model_checkpoint_best`)).origin).toBe(`checkpoint model_checkpoint_best (step 2) of ${JOB}`)
    const folderOf = join(run.path, 'checkpoints', 'model_checkpoint_best')
    expect(await find(folderOf)).toMatchObject({ dir: folderOf, base: { path: BASE.path } })
    expect(await find('arbor-tiny')).toMatchObject({ dir: null, base: { name: 'arbor-tiny' } })
    expect(await find(JOB, { base: 'arbor-tiny' })).toMatchObject({ base: { name: 'arbor-tiny' } })
  })

  it('says what there is when a name leads nowhere', async () => {
    await expect(find('grpo:tiny-chat:calm-fix:20261122')).rejects.toThrow(
      /no run .*Did you mean grpo:tiny-chat:calm-fox:20261122/,
    )
    await expect(find(`${JOB}@worst`)).rejects.toThrow(
      /has no checkpoint "worst".*model_checkpoint_best, model_checkpoint_last, last, best/,
    )
    await expect(find('arbor-tiny', { base: 'arbor-tiny' })).rejects.toThrow(/--base is for a job or an adapter's folder/)
    const stray = join(folder, 'stray')
    mkdirSync(stray)
    writeFileSync(join(stray, 'adapter_config.json'), JSON.stringify({ base_model_name_or_path: null }))
    await expect(find(stray)).rejects.toThrow(/stray: nothing there says which base model.*--base/)
  })
})
