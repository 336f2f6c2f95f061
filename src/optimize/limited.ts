// Many things at once, but not too many.

/** Runs `work` on all items, at most `limit` at a time; answers in order. After the first error no further item is begun. */
export async function limited<T, R>(items: readonly T[], limit: number, work: (item: T) => Promise<R>): Promise<R[]> {
  const results = new Array<R>(items.length)
  let next = 0
  const worker = async () => {
    while (next < items.length) {
      const index = next++
      try {
        results[index] = await work(items[index]!)
      } catch (error) {
        next = items.length
        throw error
      }
    }
  }
  await Promise.all(Array.from({ length: Math.min(limit, items.length) }, worker))
  return results
}

/** Runs what it is given at once, or where `limit` of its calls are under way when one of them has ended, the first that waits first. */
export function gate(limit: number): <R>(work: () => Promise<R>) => Promise<R> {
  const waiting: (() => void)[] = []
  let underWay = 0
  return async (work) => {
    if (underWay === limit) await new Promise<void>((enter) => waiting.push(enter))
    else underWay++
    try {
      return await work()
    } finally {
      const next = waiting.shift()
      if (next) next()
      else underWay--
    }
  }
}
