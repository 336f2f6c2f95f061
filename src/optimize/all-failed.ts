// Where every run fails there is nothing to search: a server that is down or a broken metric must not look like a result.

import { AdapterParseError, ArborError } from '../errors'

/**
 * Takes what each run of a program and its metric threw, null where they went well.
 * @throws ArborError with the first error as its cause when every run failed; not where an answer could not be read: demos may teach the format
 */
export function checkNotAllFailed(thrown: readonly unknown[]): void {
  if (thrown.length === 0 || thrown.some((error) => error === null || error instanceof AdapterParseError)) return
  const [first] = thrown
  const text = first instanceof Error ? `${first.name}: ${first.message}` : String(first)
  throw new ArborError(`The program or its metric failed on all ${thrown.length} examples. The first failure: ${text}`, {
    code: 'all_failed',
    cause: first,
  })
}
