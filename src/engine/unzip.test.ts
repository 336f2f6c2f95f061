// The archives are written by Python's zipfile (python3 -c "…" | base64), so the reader is tested against another hand's writer.

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { afterAll, describe, expect, it } from 'vitest'
import { openZipEntry, zipEntries } from './unzip'

const folder = mkdtempSync(join(tmpdir(), 'arbor-zip-'))
afterAll(() => rmSync(folder, { recursive: true }))

const ARCHIVE =
  'UEsDBBQAAAAAAAAAIQAL+UNWBgAAAAYAAAAKAAAAc3RvcmVkLnR4dHN0b3JlZFBLAwQUAAAACAAAACEAywEbfA4AAABYAgAAEAAAAHN1Yi9kZWZsYXRlZC50eHQrSEzOTk0pGCVHSaqSAFBLAQIUAxQAAAAAAAAAIQAL+UNWBgAAAAYAAAAKAAAAAAAAAAAAAACAAQAAAABzdG9yZWQudHh0UEsBAhQDFAAAAAgAAAAhAMsBG3wOAAAAWAIAABAAAAAAAAAAAAAAAIABLgAAAHN1Yi9kZWZsYXRlZC50eHRQSwUGAAAAAAIAAgB2AAAAagAAAAkAYSBjb21tZW50'

function archive(name: string, bytes: Buffer): string {
  const path = join(folder, name)
  writeFileSync(path, bytes)
  return path
}

describe('unzip', () => {
  const whole = Buffer.from(ARCHIVE, 'base64')

  it('reads stored and deflated entries, also behind a comment', async () => {
    const path = archive('good.zip', whole)
    const entries = zipEntries(path)
    expect(entries.map(({ name, size, method }) => [name, size, method])).toEqual([
      ['stored.txt', 6, 0],
      ['sub/deflated.txt', 600, 8],
    ])
    expect(await text(openZipEntry(path, entries[0]!))).toBe('stored')
    expect(await text(openZipEntry(path, entries[1]!))).toBe('packed'.repeat(100))
  })

  it('what is cut or damaged is an error', async () => {
    expect(() => zipEntries(archive('cut.zip', whole.subarray(0, 100)))).toThrow(/cut\.zip: not a whole zip archive/)
    const bytes = Buffer.from(whole)
    bytes.fill(0xff, 0, 4)
    const path = archive('header.zip', bytes)
    expect(() => openZipEntry(path, zipEntries(path)[0]!)).toThrow(/"stored\.txt" is damaged/)
    const packed = Buffer.from(whole)
    const entry = zipEntries(archive('p.zip', packed))[1]!
    packed.fill(0xff, entry.headerOffset + 46, entry.headerOffset + 50)
    await expect(text(openZipEntry(archive('p.zip', packed), entry))).rejects.toThrow()
  })
})
