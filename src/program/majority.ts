// majority: the answer that most completions agree on. Follows dspy/predict/aggregation.py.

import { OptionError } from '../errors'
import { Completions, fieldsOf, Prediction } from './example'
import { normalizeText } from './normalize-text'
import { pyStr } from './python-text'

export interface MajorityOptions {
  /** What makes two answers the same; null for an answer that doesn't count. `null`: answers as they are. */
  readonly normalize?: ((value: unknown) => unknown) | null
  /** The field to vote on; the last one unless given. */
  readonly field?: string
}

/**
 * The first completion with the most common answer; of equally common ones the earliest. Empty answers count only when all are empty.
 * @example majority(await new dspy.Predict('question -> answer', { n: 5 }).call({ question })).answer
 * @throws OptionError for no completions, or none with the field
 */
export function majority(given: Prediction | Completions | readonly object[], options: MajorityOptions = {}): Prediction {
  const rows = rowsOf(given)
  if (rows.length === 0) throw new OptionError('There are no completions to vote on.')
  const field = options.field ?? Object.keys(rows[0]!).at(-1)
  const without = field === undefined ? 0 : rows.findIndex((row) => !Object.hasOwn(row, field))
  if (field === undefined || without >= 0) throw new OptionError(`Completion ${without} has no field '${field}' to vote on.`)
  const normalize = options.normalize === undefined ? normalizeAnswer : (options.normalize ?? ((value: unknown) => value))
  const values: unknown[] = rows.map((row) => normalize(row[field]) ?? null)
  const counts = new Map<unknown, number>()
  const counted = values.filter((value) => value !== null)
  for (const value of counted.length > 0 ? counted : values) counts.set(value, (counts.get(value) ?? 0) + 1)
  const most = Math.max(...counts.values())
  const [winner] = [...counts].find(([, count]) => count === most)!
  return Prediction.fromCompletions([rows[values.indexOf(winner)]!])
}

function rowsOf(given: Prediction | Completions | readonly object[]): Record<string, unknown>[] {
  const completions = given instanceof Prediction ? given.completions : given
  if (completions === null) throw new OptionError('This prediction was made by hand: it has no completions to vote on.')
  if (completions instanceof Completions) return Array.from({ length: completions.length }, (_, i) => completions.row(i))
  return (completions as readonly object[]).map((row) => ({ ...fieldsOf(row) }))
}

function normalizeAnswer(value: unknown): string | null {
  return normalizeText(pyStr(value)) || null
}
