// What an optimizer brings and what it costs: runs it under a meter, then asks the program that came out the test questions.

import { context, currentSettings, Evaluate, type Example, type HistoryEntry, type Metric, type Module } from '../program'

/** Percent of the test questions answered rightly, with the 95 % interval. */
export interface TestScore {
  readonly score: number
  readonly low: number
  readonly high: number
}

/** The program, what it took to find it, and its scores. The test's own calls are not in the cost. */
export interface Measured<P extends Module> {
  readonly program: P
  /** Answers that models gave; those from a cache cost nothing. */
  readonly lmCalls: number
  readonly promptTokens: number
  readonly completionTokens: number
  /** Wall clock. */
  readonly seconds: number
  /** What the model reads for one test question: demonstrations and long instructions are paid at every call. */
  readonly promptTokensPerQuestion: number
  /** Each question's likeliest answer. */
  readonly greedy: TestScore
  /** Answers drawn at temperature 1, as GRPO draws them. */
  readonly sampled: TestScore
}

export interface MeasureOptions {
  readonly testset: readonly Example[]
  readonly metric: Metric
}

/**
 * Runs `optimize`, counting, and tests its program both ways.
 * @throws what `optimize` throws
 * @example await tasks.measure(() => mipro.compile(program, { trainset, valset }), { testset, metric })
 */
export async function measure<P extends Module>(optimize: () => P | Promise<P>, options: MeasureOptions): Promise<Measured<P>> {
  const started = performance.now()
  const { result: program, cost } = await counted(async () => optimize())
  const seconds = (performance.now() - started) / 1000
  const { result: tests, cost: asked } = await counted(() =>
    Promise.all([0, 1].map((temperature) => test(program, temperature, options))),
  )
  const [greedy, sampled] = tests as [TestScore, TestScore]
  return {
    program,
    ...cost,
    seconds,
    promptTokensPerQuestion: asked.promptTokens / (2 * options.testset.length),
    greedy,
    sampled,
  }
}

/** Runs `run` and counts what models answered in it. */
async function counted<T>(run: () => Promise<T>) {
  const cost = { lmCalls: 0, promptTokens: 0, completionTokens: 0 }
  const count = ({ outputs, usage, cacheHit }: HistoryEntry) => {
    if (cacheHit) return
    cost.lmCalls += outputs.length
    cost.promptTokens += usage.promptTokens
    cost.completionTokens += usage.completionTokens
  }
  const result = await context({ lmObservers: [...currentSettings().lmObservers, count] }, run)
  return { result, cost }
}

async function test(program: Module, temperature: number, { testset, metric }: MeasureOptions): Promise<TestScore> {
  const evaluate = new Evaluate({ devset: testset, metric, maxErrors: Number.POSITIVE_INFINITY }) // what can't be read is wrong
  const { results } = await context({ lmOptions: { temperature, seed: 1 } }, () => evaluate.call(program))
  return testScore(results.filter(({ score }) => Number(score) > 0).length, results.length)
}

/** So many right ones as a share in percent, with Wilson's 95 % interval, which holds near 0 and 100 as well. */
export function testScore(right: number, total: number): TestScore {
  const z = 1.96
  const share = right / total
  const middle = (share + (z * z) / (2 * total)) / (1 + (z * z) / total)
  const half = (z / (1 + (z * z) / total)) * Math.sqrt((share * (1 - share)) / total + (z * z) / (4 * total * total))
  return { score: 100 * share, low: 100 * Math.max(0, middle - half), high: 100 * Math.min(1, middle + half) }
}
