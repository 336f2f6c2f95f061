import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { OptionError } from '../errors'
import type { ExportResult } from '../export/export-policy'
import { help, report, run } from './export'

const folder = mkdtempSync(join(tmpdir(), 'arbor-cli-export-'))
afterAll(() => rmSync(folder, { recursive: true }))
const RESULT: ExportResult = {
  ...{ tokens: 200, largestGap: 0.0123, meanKl: 2e-6, sameTop: 1, prompts: 4, sameAnswers: 4, trainedKl: 0.5 },
}

describe('arbor-nb export', () => {
  it.each([
    [['arbor-tiny'], /--out is missing/],
    [['arbor-tiny', '--out', 'x', '--dtype', 'q4_0'], /--dtype q4_0: choose one of f32, f16, bf16, q8_0/],
    [['arbor-tiny', '--out', 'x', '--adapter', '--format', 'gguf'], /can't both be meant/],
    [['arbor-tiny', '--out', 'x', '--adapter', '--dtype', 'f16'], /written as it was trained: leave --dtype out/],
    [['arbor-tiny', '--out', 'x', '--format', 'onnx'], /--format onnx: choose one of safetensors, gguf, adapter/],
    [['grpo:a:b:20260101', '--out', 'x', '--storage', folder], /There is no run "grpo:a:b:20260101"/],
    [['--out', 'x'], /MODEL is missing/],
  ])('%j is not understood', async (argv, message) => {
    const outcome = run(argv)
    await expect(outcome).rejects.toThrow(message)
    await expect(outcome).rejects.toBeInstanceOf(OptionError)
  })

  it('tells what the comparison found, and where rounding hides what was trained', () => {
    expect(report(RESULT)).toEqual([
      "Good: over 200 tokens its logits are at most 0.012 from the policy's (0.0000020 nats a token); " +
        'the likeliest token is the same at 100.0 %, and 4 of 4 greedy answers are equal.',
    ])
    expect(report({ ...RESULT, meanKl: 2e-3, trainedKl: 3e-3 })[1]).toMatch(/training moved the policy 0\.0030 nats/)
    expect(report({ ...RESULT, trainedKl: null })).toHaveLength(1)
  })

  it('its help names every type and format', () => {
    for (const word of ['f32', 'f16', 'bf16', 'q8_0', 'safetensors', 'gguf', 'adapter', '@best']) expect(help).toContain(word)
  })
})
