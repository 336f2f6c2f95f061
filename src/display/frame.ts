// Rows as a danfojs DataFrame, which has filters, groups and joins. The package is optional: it brings TensorFlow.js along.

import { createRequire } from 'node:module'
import { join } from 'node:path'
import { ArborError } from '../errors'
import type { Row } from './table'

/** The part of danfojs' DataFrame that cells use most; the value has all of its methods. */
export interface DataFrame {
  readonly columns: string[]
  readonly index: (string | number)[]
  readonly shape: [number, number]
  readonly values: (string | number | boolean)[][]
  column(name: string): {
    readonly values: unknown[]
    mean(): number
    sum(): number
    min(): number
    max(): number
    unique(): unknown
  }
  groupby(columns: string[]): {
    agg(operations: Record<string, string | string[]>): DataFrame
    count(): DataFrame
    mean(): DataFrame
  }
  head(rows?: number): DataFrame
  tail(rows?: number): DataFrame
  sortValues(column: string, options?: { ascending?: boolean }): DataFrame
  describe(): DataFrame
  toString(): string
}

/** The data frame of `rows`. ArborError, with what to install, where danfojs-node is missing. */
export async function frame(rows: readonly Row[]): Promise<DataFrame> {
  const danfo = loadDanfo()
  return new danfo.DataFrame(rows)
}

function loadDanfo(): { DataFrame: new (rows: readonly Row[]) => DataFrame } {
  for (const file of [__filename, join(process.cwd(), 'cell.js')]) {
    try {
      return createRequire(file)('danfojs-node')
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'MODULE_NOT_FOUND') throw error
    }
  }
  throw new ArborError(
    'plot.frame makes a danfojs DataFrame, and danfojs-node is not installed here. Run: npm install danfojs-node — or use plot.table(rows), which needs nothing.',
    { code: 'danfojs_missing' },
  )
}
