// OpenAI's lists, page by page.

import type { Context } from 'hono'
import { HttpError } from './http-errors'

/**
 * `limit` entries (default all, at most `most`) behind the one whose id is `after`; an id that the list doesn't have begins anew.
 * @param entries in the order in which they are paged through
 */
export function listPage<Entry extends { readonly id: string }>(entries: readonly Entry[], c: Context, most = entries.length) {
  const limit = c.req.query('limit')
  const count = limit === undefined ? most : Number(limit)
  if (!(Number.isInteger(count) && count >= 0))
    throw new HttpError(400, `limit is "${limit}"; a whole number is needed.`, { param: 'limit' })
  const after = c.req.query('after')
  const start = after === undefined ? 0 : entries.findIndex(({ id }) => id === after) + 1
  const data = entries.slice(start, start + count)
  const has_more = start + data.length < entries.length
  return { object: 'list' as const, data, first_id: data[0]?.id ?? null, last_id: data.at(-1)?.id ?? null, has_more }
}
