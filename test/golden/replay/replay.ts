// Reads every vector file under a folder and replays its cases.
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { basename, join } from 'node:path'
import type { Difference, GoldenCase } from './case'
import { replays } from './registry'

export interface CaseResult {
  readonly id: string
  readonly kind: string
  readonly status: 'passed' | 'failed' | 'skipped'
  /** Why it was skipped, or what differs. */
  readonly detail?: string
}

/**
 * All cases under a folder (or of one file), in file order: a file holds one case, a list of cases, or `{ cases: [...] }`.
 * A file that isn't JSON becomes a case that fails.
 */
export function readCases(path: string): GoldenCase[] {
  return vectorFiles(path).flatMap((file) => {
    const content = parseFile(file)
    const cases = Array.isArray(content) ? content : ((content as { cases?: unknown[] }).cases ?? [content])
    return cases.map((value, i) => named(value, `${basename(file, '.json')}${cases.length > 1 ? `#${i}` : ''}`))
  })
}

/** Replays one case; what a replay throws is a failure. */
export async function replayCase(testCase: GoldenCase): Promise<CaseResult> {
  const { id, kind } = testCase
  if (testCase.unreadable) return { id, kind, status: 'failed', detail: String(testCase.unreadable) }
  const replay = Object.hasOwn(replays, kind) ? replays[kind] : undefined
  if (!replay) return { id, kind, status: 'skipped', detail: `kind '${kind}' isn't built yet` }
  try {
    const outcome = await replay(testCase)
    if (outcome === null) return { id, kind, status: 'passed' }
    if (typeof outcome === 'string') return { id, kind, status: 'skipped', detail: outcome.slice('skip: '.length) }
    return { id, kind, status: 'failed', detail: describeDifference(outcome) }
  } catch (error) {
    return { id, kind, status: 'failed', detail: error instanceof Error ? (error.stack ?? error.message) : String(error) }
  }
}

function vectorFiles(path: string): string[] {
  if (!statSync(path).isDirectory()) return [path]
  return readdirSync(path, { withFileTypes: true })
    .sort((a, b) => (a.name < b.name ? -1 : 1))
    .flatMap((entry) => {
      if (entry.isDirectory()) return vectorFiles(join(path, entry.name))
      return entry.name.endsWith('.json') ? [join(path, entry.name)] : []
    })
}

function parseFile(file: string): unknown {
  try {
    return JSON.parse(readFileSync(file, 'utf8'))
  } catch (error) {
    return { id: file, unreadable: `not a JSON file: ${error instanceof Error ? error.message : String(error)}` }
  }
}

function named(value: unknown, fallbackId: string): GoldenCase {
  const fields = typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {}
  return { ...fields, id: String(fields.id ?? fallbackId), kind: String(fields.kind ?? 'none') }
}

function describeDifference({ path, expected, got }: Difference): string {
  return `${path || 'result'}: expected ${brief(expected)}, got ${brief(got)}`
}

function brief(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value)
  return text.length > 300 ? `${text.slice(0, 300)}…` : text
}
