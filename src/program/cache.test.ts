import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { LMResponse } from './base-lm'
import { cacheKey, configureCache, currentCache, LMCache } from './cache'

let dir = ''
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'arbor-cache-'))
})
afterEach(() => rmSync(dir, { recursive: true, force: true }))

const answer = (text: string): LMResponse => ({
  id: 'r',
  model: 'm',
  outputs: [{ text, completionId: 'r#0', finishReason: 'stop' }],
  usage: { promptTokens: 1, completionTokens: 2, totalTokens: 3 },
})
const fileOf = (cache: LMCache, key: string) => join(cache.folder, key.slice(0, 2), `${key}.json`)
const files = () => readdirSync(dir, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile())

describe('cacheKey', () => {
  it('depends on every value, and on no order of keys', () => {
    const key = cacheKey({ model: 'm', options: { a: 1, b: [1, 2] } })
    expect(cacheKey({ options: { b: [1, 2], a: 1 }, model: 'm' })).toBe(key)
    expect(cacheKey({ model: 'm', options: { a: 1, b: [2, 1] } })).not.toBe(key)
    expect(key).toMatch(/^[\da-f]{64}$/)
  })
})

describe('LMCache', () => {
  it('gives back what was kept, also to another process', async () => {
    const cache = new LMCache({ folder: dir })
    const key = cacheKey({ a: 1 })
    expect(await cache.get(key)).toBeNull()
    expect(await cache.set(key, answer('x'))).toBe(true)
    expect(await new LMCache({ folder: dir }).get(key)).toEqual(answer('x'))
    await cache.clear()
    expect(await cache.get(key)).toBeNull()
  })

  it.each(['', '{"id": "r", "outp', '[]', '{"outputs": [], "usage": {}}', '{"outputs": [{"text": 3}], "usage": {}}', 'null'])(
    'takes a file with %j for a miss, and removes it',
    async (text) => {
      const cache = new LMCache({ folder: dir })
      const path = fileOf(cache, cacheKey({ a: 1 }))
      mkdirSync(join(path, '..'))
      writeFileSync(path, text)
      expect(await cache.get(cacheKey({ a: 1 }))).toBeNull()
      expect(files()).toEqual([])
    },
  )

  it('stays within its size: what was used longest ago goes first', async () => {
    const size = JSON.stringify(answer('0')).length
    const cache = new LMCache({ folder: dir, maxBytes: 10 * size })
    const keys = Array.from({ length: 14 }, (_, i) => cacheKey({ i }))
    for (const [i, key] of keys.entries()) {
      await cache.set(key, answer(String(i % 10)))
      utimesSync(fileOf(cache, key), i, i)
      if (i === 9) await cache.get(keys[0]!) // used again: now the youngest
    }
    expect(files().length).toBeLessThanOrEqual(10)
    expect(await cache.get(keys[0]!)).not.toBeNull()
    expect(await cache.get(keys[1]!)).toBeNull()
    expect(await cache.get(keys[13]!)).not.toBeNull()
  })

  it('removes what a process that ended left half written', async () => {
    const orphan = join(dir, 'ab.json.1.x.tmp')
    writeFileSync(orphan, '{')
    utimesSync(orphan, 1, 1)
    await new LMCache({ folder: dir }).set(cacheKey({ a: 1 }), answer('x'))
    expect(files().map((file) => file.name)).toEqual([`${cacheKey({ a: 1 })}.json`])
  })

  it('says when it can not keep an answer', async () => {
    const blocked = join(dir, 'file')
    writeFileSync(blocked, '')
    const cache = new LMCache({ folder: blocked })
    expect(await cache.set(cacheKey({ a: 1 }), answer('x'))).toBe(false)
    expect(await cache.get(cacheKey({ a: 1 }))).toBeNull()
    expect(statSync(blocked).isFile()).toBe(true)
  })

  it('holds whole answers only while several processes write the same ones', async () => {
    const script = `
      const { writeFileSync, renameSync, mkdirSync } = require('node:fs')
      const path = process.argv[1]
      mkdirSync(require('node:path').dirname(path), { recursive: true })
      for (let i = 0; i < 200; i++) {
        writeFileSync(path + '.' + process.pid + '.tmp', process.argv[2])
        renameSync(path + '.' + process.pid + '.tmp', path)
      }`
    const cache = new LMCache({ folder: dir })
    const key = cacheKey({ shared: true })
    const long = answer('x'.repeat(100_000))
    await cache.set(key, long)
    const reads = Promise.all(Array.from({ length: 50 }, () => cache.get(key)))
    execFileSync(process.execPath, ['-e', script, fileOf(cache, key), JSON.stringify(long)])
    const writes = Promise.all(Array.from({ length: 50 }, () => cache.set(key, long)))
    expect(new Set((await reads).map((one) => one!.outputs[0]!.text.length))).toEqual(new Set([100_000]))
    expect(new Set(await writes)).toEqual(new Set([true]))
    expect(files().filter((file) => file.name.endsWith('.tmp'))).toEqual([])
  })
})

describe('configureCache', () => {
  it('moves the cache of all models, or switches it off', () => {
    configureCache({ folder: dir, maxBytes: 5 })
    expect(currentCache()).toMatchObject({ folder: dir, maxBytes: 5 })
    configureCache(null)
    expect(currentCache()).toBeNull()
    expect(configureCache({})?.folder).toMatch(/cache$/)
  })
})
