// What all prompt optimizers share: programs that were tried with their scores, what that cost, the best so far, and an end at any time.
// An optimizer makes one CandidateSearch a compile, files every program it has scored, and answers what `run` answers.

import { OptionError } from '../errors'
import { checkExamples, context, currentSettings, type Example, type Module, newActivityId, reportProgress } from '../program'
import { notebookSignal } from './notebook-signal'
import { type Spending, SpendingMeter } from './spending'

/** What `compile` of every prompt optimizer takes; each adds its own. */
export interface PromptCompileOptions<P extends Module = Module> {
  readonly trainset: readonly Example[]
  readonly valset?: readonly Example[]
  /** Shows how it is done; default: the student itself. */
  readonly teacher?: P
  /** Aborting ends the search with the best program so far. In a notebook, interrupting the cell does the same. */
  readonly signal?: AbortSignal
}

/** One scored program as the progress observer hears of it; plain data. */
export interface CandidateRecord {
  /** In the order of scoring, from 0. */
  readonly index: number
  /** What was tried, in a few words: 'zero-shot', 'seed 3', 'instruction 2, demos 0'. */
  readonly label: string
  /** Percent, on the whole validation set or on a part of it. */
  readonly score: number
  /** Whether all of the validation set was used; false: a minibatch. */
  readonly full: boolean
  /** The best full score so far, this one included; null before the first. */
  readonly best: number | null
  /** What the program says to the model, predictor by predictor. */
  readonly predictors: readonly { readonly name: string; readonly instructions: string; readonly demos: number }[]
  readonly spent: Spending
}

/** A scored program. */
export interface Candidate<P extends Module = Module> extends CandidateRecord {
  readonly program: P
  /** The score of each example, where the optimizer keeps them. */
  readonly subscores?: readonly (number | boolean)[]
  /** BootstrapRS: the seed that shuffled the examples; −3 zero-shot, −2 labeled demos, −1 unshuffled. */
  readonly seed?: number
}

/** One trial of an optimizer that keeps a log, with DSPy's keys in camelCase. */
export type TrialLog = Record<string, unknown>

/** What an optimized program carries besides itself. The fields are not enumerable: they are in no saved state and in no copy. */
export interface SearchResult<P extends Module = Module> {
  /** Programs scored on the whole validation set, best first; equal ones in the order of trying. */
  readonly candidatePrograms: readonly Candidate<P>[]
  /** Programs scored on minibatches, best first. */
  readonly mbCandidatePrograms: readonly Candidate<P>[]
  readonly trialLogs: Readonly<Record<number, TrialLog>>
  /** The program's own score in percent; null where nothing was scored. */
  readonly score: number | null
  readonly spent: Spending
  /** Whether the search was cut off, so that this is the best so far. */
  readonly interrupted: boolean
  /** Warnings on the way, each once: what could not be read, what counted 0. */
  readonly notes: readonly string[]
}

export type Optimized<P extends Module> = P & SearchResult<P>

/** The payloads of optimize:start, optimize:item and optimize:end. */
export type SearchProgress =
  | { readonly candidate: CandidateRecord }
  | { readonly activity: string }
  | { readonly note: string }
  | { readonly status: 'succeeded' | 'interrupted' | 'failed'; readonly reason: string | null; readonly spent: Spending }

export interface SearchOptions {
  /** The optimizer's name. */
  readonly title: string
  /** Candidates to come; 0: not known. */
  readonly total?: number
  readonly signal?: AbortSignal
}

/** A program and its score, as `CandidateSearch.add` takes it. */
export interface Scored<P extends Module> {
  readonly label: string
  readonly score: number
  readonly program: P
  /** Default: true. */
  readonly full?: boolean
  readonly subscores?: readonly (number | boolean)[]
  readonly seed?: number
}

/** A program that warns at every call should not fill the notebook. */
const MOST_NOTES = 20

/**
 * One search: counts, files, reports, and ends well.
 * @example
 * this.search = new CandidateSearch<P>({ title: 'BootstrapRS', total: 19, signal: options.signal })
 * return this.search.run(async (search) => {
 *   for (const program of tries) search.add({ label: 'zero-shot', program, score: (await evaluate.call(program)).score })
 *   return null
 * })
 */
export class CandidateSearch<P extends Module> {
  readonly candidates: Candidate<P>[] = []
  readonly trialLogs: Record<number, TrialLog> = {}
  readonly notes: string[] = []
  /** Candidates to come in all; an optimizer that learns it later sets it. */
  total: number
  readonly signal: AbortSignal | undefined
  readonly #title: string
  readonly #id: string
  readonly #meter = new SpendingMeter()

  constructor({ title, total = 0, signal }: SearchOptions) {
    this.total = total
    this.signal = signal ?? currentSettings().signal ?? notebookSignal()
    this.#title = title
    this.#id = newActivityId('optimize')
  }

  /**
   * Runs a search to its end. Every model call inside is counted and ends with the signal. Answers the program that `search` returns, for null
   * the best one; after an abort the best so far. The optimizer keeps this object, so an error loses none of the candidates.
   * @throws what `search` throws; after an abort without any candidate the signal's reason
   */
  async run(search: (self: this) => Promise<P | null>): Promise<Optimized<P>> {
    const signal = this.signal ?? null
    const { onWarning: outer } = currentSettings()
    const onWarning = (text: string) => {
      this.#warn(text)
      outer?.(text)
    }
    this.#report('start', { activity: 'starting' })
    try {
      const chosen = await this.#meter.count(() => context({ signal, onWarning }, () => search(this)))
      return this.#end(chosen ?? this.best?.program, 'succeeded')
    } catch (error) {
      if (this.signal?.aborted && this.best) return this.#end(this.best.program, 'interrupted')
      const reason = error instanceof Error ? error.message : String(error)
      this.#report('end', { status: this.signal?.aborted ? 'interrupted' : 'failed', reason, spent: this.spent })
      throw error
    }
  }

  /** Files a scored program and reports it. */
  add(scored: Scored<P>): Candidate<P> {
    const { full = true, program } = scored
    const best = this.#bestOf(true)?.score ?? null
    const predictors = program.namedPredictors().map(([name, { signature, demos }]) => ({
      name,
      instructions: signature.instructions,
      demos: demos.length,
    }))
    const candidate: Candidate<P> = {
      ...scored,
      full,
      index: this.candidates.length,
      best: full ? Math.max(best ?? scored.score, scored.score) : best,
      predictors,
      spent: this.spent,
    }
    this.candidates.push(candidate)
    const { program: _, subscores: _s, ...record } = candidate
    this.#report('item', { candidate: record })
    return candidate
  }

  /** Tells what is going on between two candidates, in a few words; also the place where an abort is heeded. */
  note(activity: string): void {
    this.signal?.throwIfAborted()
    this.#report('item', { activity })
  }

  /** The highest full score, the first of equal ones; before any full evaluation the best minibatch. */
  get best(): Candidate<P> | null {
    return this.#bestOf(true) ?? this.#bestOf(false)
  }

  get spent(): Spending {
    return this.#meter.spent
  }

  #bestOf(full: boolean): Candidate<P> | null {
    let best: Candidate<P> | null = null
    for (const candidate of this.candidates)
      if (candidate.full === full && (best === null || candidate.score > best.score)) best = candidate
    return best
  }

  #warn(text: string): void {
    if (this.notes.includes(text)) return
    if (this.notes.length < MOST_NOTES) this.notes.push(text)
    this.#report('item', { note: text })
  }

  #end(program: P | undefined, status: 'succeeded' | 'interrupted'): Optimized<P> {
    if (!program) throw new OptionError(`${this.#title} has tried no program: give it at least one candidate to score.`)
    const sorted = (full: boolean) =>
      this.candidates.filter((one) => one.full === full).sort((a, b) => b.score - a.score || a.index - b.index)
    const candidatePrograms = sorted(true)
    const own = [...candidatePrograms, ...sorted(false)].find((one) => one.program === program)
    const result: SearchResult<P> = {
      candidatePrograms,
      mbCandidatePrograms: sorted(false),
      trialLogs: this.trialLogs,
      score: own?.score ?? this.best?.score ?? null,
      spent: this.spent,
      interrupted: status === 'interrupted',
      notes: this.notes,
    }
    this.#report('end', { status, reason: status === 'interrupted' ? 'interrupted' : null, spent: result.spent })
    return withResult(program, result)
  }

  #report(phase: 'start' | 'item' | 'end', payload: SearchProgress): void {
    reportProgress({
      kind: `optimize:${phase}`,
      id: this.#id,
      title: this.#title,
      done: this.candidates.length,
      total: this.total,
      payload,
    })
  }
}

/** Puts the result beside the program's own attributes, where neither copies nor saved states nor predictor lists see it. */
export function withResult<P extends Module>(program: P, result: SearchResult<P>): Optimized<P> {
  for (const [key, value] of Object.entries(result))
    Object.defineProperty(program, key, { value, enumerable: false, configurable: true, writable: true })
  return program as Optimized<P>
}

/** @throws OptionError when there is no example to learn from, or something else among them */
export function checkTrainset(trainset: readonly Example[] | undefined, optimizer: string): void {
  if (!Array.isArray(trainset) || trainset.length === 0)
    throw new OptionError(
      `The trainset is empty: ${optimizer} needs at least one example. Pass compile(student, { trainset: examples }).`,
    )
  checkExamples(trainset, 'trainset')
}
