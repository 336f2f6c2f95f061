// Every vector in test/golden/loss and test/golden/dspy, through the same replays as `npm run golden`.
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { readCases, replayCase } from './replay'

for (const folder of ['loss', 'dspy'].map((name) => join(__dirname, '..', name)).filter(existsSync)) {
  describe(`golden vectors in ${folder.slice(-4)}`, () => {
    it.for(readCases(folder))('$id', async (testCase, context) => {
      const result = await replayCase(testCase)
      if (result.status === 'skipped') context.skip(result.detail)
      expect(result.status === 'failed' ? result.detail : 'agrees').toBe('agrees')
    })
  })
}
