// Streaming: the fields of a program's predictors, piece by piece as the model writes them. Follows dspy/streaming.

import { OptionError } from '../errors'
import type { Adapter } from './adapter'
import { context, currentSettings } from './context'
import type { Module } from './module'
import type { Predict } from './predict'
import type { Signature } from './signature'
import { type FieldPiece, fieldReader } from './stream-fields'

/** Who hears a completion as it comes. */
export interface TextListener {
  onText(text: string): void
  onEnd(): void
}

/** Where a predictor's text goes; undefined for one that nobody listens to. */
export type StreamSink = (predictor: Predict) => ((adapter: Adapter, signature: Signature) => TextListener) | undefined

export interface StreamChunk {
  /** The predictor's path in the program: `answer.predict`, or `self` for a bare predictor. */
  readonly predictor: string
  readonly field: string
  /** Text that joins the text before it; of a field that is no text, as the model writes it. */
  readonly chunk: string
  /** The field is complete; the chunk may be empty. */
  readonly isLast: boolean
}

export interface StreamOptions {
  /** Output fields to listen to, all unless given: a name, or a name and the path of the predictor where several have it. */
  readonly fields?: readonly (string | { readonly field: string; readonly predictor: string })[]
}

/** The chunks as they come. Leaving the loop early aborts the program. */
export interface FieldStream<T> extends AsyncIterable<StreamChunk> {
  /** The program's answer. */
  readonly prediction: Promise<T>
}

type Call<M extends Module> = (...args: Parameters<M['forward']>) => FieldStream<Awaited<ReturnType<M['forward']>>>

/**
 * A program that tells its fields while it runs. Programs that copy their predictors before they call them, as BestOfN does, tell nothing.
 * @example
 * const stream = dspy.streamify(qa, { fields: ['answer'] })({ question })
 * for await (const { chunk } of stream) process.stdout.write(chunk)
 * const { answer } = await stream.prediction
 * @throws OptionError for a field that no predictor has, or several have
 */
export function streamify<M extends Module>(program: M, options: StreamOptions = {}): Call<M> {
  const wanted = wantedFields(program, options)
  return (...args) => {
    const queue = new Queue<StreamChunk>()
    const stop = new AbortController()
    const stream: StreamSink = (predictor) => {
      const heard = wanted.get(predictor)
      return heard && ((adapter) => listener(adapter, heard, queue))
    }
    const outer = currentSettings().signal
    const abort = () => stop.abort(outer?.reason)
    if (outer?.aborted) abort()
    outer?.addEventListener('abort', abort, { once: true })
    const prediction = context({ stream, signal: stop.signal }, () => program.call(...(args as Parameters<M['forward']>)))
    const ended = prediction.then(
      () => queue.close(),
      (error) => queue.fail(error),
    )
    void ended.finally(() => outer?.removeEventListener('abort', abort))
    return {
      prediction: prediction as Promise<Awaited<ReturnType<M['forward']>>>,
      [Symbol.asyncIterator]: () => chunks(queue, stop),
    }
  }
}

async function* chunks(queue: Queue<StreamChunk>, stop: AbortController): AsyncGenerator<StreamChunk> {
  try {
    for (let next = await queue.take(); next; next = await queue.take()) yield next
  } finally {
    stop.abort(new DOMException('The stream was left.', 'AbortError'))
  }
}

interface Heard {
  readonly name: string
  readonly fields: ReadonlySet<string>
}

function listener(adapter: Adapter, { name, fields }: Heard, queue: Queue<StreamChunk>): TextListener {
  const reader = fieldReader(adapter)
  const tell = (pieces: readonly FieldPiece[]) => {
    for (const piece of pieces) if (fields.has(piece.field)) queue.add({ predictor: name, ...piece })
  }
  return { onText: (text) => tell(reader?.write(text) ?? []), onEnd: () => tell(reader?.end() ?? []) }
}

function wantedFields(program: Module, { fields }: StreamOptions): Map<Predict, Heard> {
  const predictors = program.namedPredictors()
  const outputs = predictors.flatMap(([name, predictor]) =>
    predictor.signature.outputFields.map(({ name: field }) => ({ name, predictor, field })),
  )
  const chosen = fields?.map((want) => oneOutput(outputs, typeof want === 'string' ? { field: want } : want)) ?? outputs
  return new Map(
    predictors.flatMap(([name, predictor]) => {
      const own = chosen.filter((output) => output.predictor === predictor).map(({ field }) => field)
      return own.length > 0 ? [[predictor, { name, fields: new Set(own) }] as const] : []
    }),
  )
}

function oneOutput<T extends { name: string; field: string }>(
  outputs: readonly T[],
  want: { field: string; predictor?: string },
): T {
  const found = outputs.filter(({ name, field }) => field === want.field && (want.predictor ?? name) === name)
  if (found.length === 1) return found[0]!
  const all = outputs.map(({ name, field }) => `${field} of ${name}`).join(', ')
  if (found.length === 0)
    throw new OptionError(`No predictor of the program has the output '${want.field}'; there is ${all || 'none'}.`)
  const names = found.map(({ name }) => `'${name}'`).join(', ')
  throw new OptionError(
    `Several predictors have the output '${want.field}': say which with { field: '${want.field}', predictor: … } (${names}).`,
  )
}

/** What is made in one place and taken in another, later. */
class Queue<T> {
  readonly #items: T[] = []
  #wake: (() => void) | null = null
  #ended = false
  #error: unknown = null

  add(item: T): void {
    this.#items.push(item)
    this.#wake?.()
  }

  close(): void {
    this.#ended = true
    this.#wake?.()
  }

  fail(error: unknown): void {
    this.#error = error
    this.close()
  }

  /** The next item; null after the last one. @throws what made the maker fail */
  async take(): Promise<T | null> {
    while (this.#items.length === 0 && !this.#ended) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
    }
    const item = this.#items.shift()
    if (item === undefined && this.#error !== null) throw this.#error
    return item ?? null
  }
}
