// GEPA's loop: choose a candidate from the frontier, run it on a minibatch, let the reflection model rewrite instructions from what happened,
// and keep the child if it does better there; now and then merge two candidates. Follows gepa/core/engine.py and gepa/proposer.

import { LMError, OptionError } from '../errors'
import { type BaseLM, context, currentSettings, type Example, type Module, type PythonRandom } from '../program'
import type { CandidateSearch, TrialLog } from './candidates'
import { EpochBatches } from './gepa-batches'
import { Merger } from './gepa-merge'
import { drawFromFrontier } from './gepa-pareto'
import { type GepaPool, sum, type Texts } from './gepa-pool'
import type { GepaProgram, Trajectory } from './gepa-program'
import { type ReflectiveExample, readInstruction, reflectionPrompt } from './gepa-proposal'
import { PythonSet } from './python-set'

/** Which candidate is worked on next: by the frontier, the best, mostly the best, or by the frontier of the five best. */
export type CandidateSelection = 'pareto' | 'current_best' | 'epsilon_greedy' | 'top_k_pareto'

/** What a component selector and a stop callback may look at. */
export interface GepaState {
  readonly pool: GepaPool
  /** From 0. */
  readonly iteration: number
}

/** Names the predictors to rewrite in this iteration. */
export type ComponentSelector = (
  state: GepaState & {
    readonly candidate: number
    readonly texts: Texts
    readonly trajectories: readonly Trajectory[]
  },
) => readonly string[] | Promise<readonly string[]>

/** Writes new instructions for the named predictors; runs with the reflection model as the configured one. */
export type InstructionProposer = (request: {
  readonly candidate: Texts
  readonly reflectiveDataset: Readonly<Record<string, readonly ReflectiveExample[]>>
  readonly componentsToUpdate: readonly string[]
}) => Texts | Promise<Texts>

export interface GepaSearchOptions {
  readonly trainset: readonly Example[]
  readonly valset: readonly Example[]
  readonly maxMetricCalls: number
  readonly minibatch: number
  /** null: a perfect minibatch is reflected on as well. */
  readonly perfectScore: number | null
  readonly selection: CandidateSelection
  readonly components: 'round_robin' | 'all' | ComponentSelector
  /** null: no merging. */
  readonly merge: { readonly maxInvocations: number; readonly overlapFloor: number } | null
  readonly acceptEqual: boolean
  readonly reflectionLm: BaseLM | null
  readonly proposer: InstructionProposer | null
  readonly stop: readonly ((state: GepaState) => boolean)[]
  readonly random: PythonRandom
}

interface Parent {
  readonly index: number
  readonly texts: Texts
  readonly program: Module
}

export class GepaSearch<P extends Module> {
  #iteration = -1
  #reflections = 0
  #lastFoundOne = false
  readonly #batches: EpochBatches
  readonly #merger: Merger | null

  constructor(
    readonly program: GepaProgram<P>,
    readonly pool: GepaPool<P>,
    readonly search: CandidateSearch<P>,
    readonly options: GepaSearchOptions,
  ) {
    const { trainset, minibatch, merge, random } = options
    this.#batches = new EpochBatches(trainset.length, minibatch, random)
    this.#merger = merge && new Merger(pool, { ...merge, random })
  }

  /** Searches until the budget is spent. Answers the best candidate. */
  async run(): Promise<P> {
    const { pool, options } = this
    await this.#keep({ texts: this.program.texts, parents: [], label: 'as given' })
    while (pool.metricCalls < options.maxMetricCalls && !options.stop.some((stop) => stop(this.#state))) {
      this.#iteration++
      this.search.note(`iteration ${this.#iteration + 1}: ${pool.metricCalls} of ${options.maxMetricCalls} metric calls`)
      if (!(await this.#merge())) await this.#mutate()
    }
    return pool.entries[pool.bestIndex]!.program
  }

  get #state(): GepaState {
    return { pool: this.pool, iteration: this.#iteration }
  }

  /** Scores a candidate on the validation set and files it. */
  async #keep({ texts, parents, label }: { texts: Texts; parents: readonly number[]; label: string }): Promise<number> {
    const program = this.program.build(texts)
    const result = await this.program.score(program, this.options.valset)
    const index = this.pool.add({ texts, program, parents }, result)
    this.search.add({ label, program, score: 100 * this.pool.entries[index]!.average, subscores: result.scores })
    return index
  }

  // ---------------------------------------------------------------- mutation

  async #mutate(): Promise<void> {
    const { trainset, perfectScore } = this.options
    const parent = this.#selectParent()
    const ids = this.#batches.at(this.#iteration)
    const batch = ids.map((id) => trainset[id]!)
    const before = await this.#tryOn(parent.program, batch)
    const log = this.#log({
      selectedCandidate: parent.index,
      subsampleIds: ids,
      subsampleScores: before.map(({ score }) => score),
    })
    if (before.length === 0) return this.#skip(log, 'no run of the minibatch came to a score')
    if (perfectScore !== null && before.every(({ score }) => score >= perfectScore)) return this.#skip(log, 'all scores perfect')
    const news = await this.#propose(parent, before, log)
    if (!news) return
    const texts = { ...parent.texts, ...news }
    const after = await this.#tryOn(this.program.build(texts), batch)
    log['newSubsampleScores'] = after.map(({ score }) => score)
    const gain = total(after) - total(before)
    if (!(gain > 0 || (gain === 0 && this.options.acceptEqual))) return
    log['newCandidate'] = await this.#keep({
      texts,
      parents: [parent.index],
      label: `candidate ${this.pool.entries.length}, from ${parent.index}`,
    })
    this.#lastFoundOne = true
    this.#merger?.allowOne()
  }

  async #tryOn(program: P, batch: readonly Example[]): Promise<Trajectory[]> {
    const trajectories = await this.program.rollOut(program, batch)
    this.pool.metricCalls += batch.length
    return trajectories
  }

  #selectParent(): Parent & { program: P } {
    const { pool } = this
    const index = this.#selectIndex()
    return { index, texts: pool.entries[index]!.texts, program: pool.entries[index]!.program }
  }

  #selectIndex(): number {
    const { pool } = this
    const { selection, random } = this.options
    const averages = pool.averages
    if (selection === 'current_best') return pool.bestIndex
    if (selection === 'epsilon_greedy') return random.random() < 0.1 ? random.randint(0, averages.length - 1) : pool.bestIndex
    if (selection === 'pareto') return drawFromFrontier(pool.fronts, averages, random)
    const top = new PythonSet(
      averages
        .map((_, i) => i)
        .sort((a, b) => averages[b]! - averages[a]!)
        .slice(0, 5),
    )
    const fronts = pool.fronts.map((front) => front.and(top)).filter((front) => front.size > 0)
    return fronts.length > 0 ? drawFromFrontier(fronts, averages, random) : pool.bestIndex
  }

  /** New instructions for some predictors; null when there was nothing to learn from or the proposal failed. */
  async #propose(parent: Parent, trajectories: readonly Trajectory[], log: TrialLog): Promise<Texts | null> {
    try {
      const components = await this.#selectComponents(parent, trajectories)
      const dataset = await this.program.reflect(trajectories, components)
      this.search.note(`rewriting ${Object.keys(dataset).join(', ')}`)
      const texts = await this.#askTwice(parent.texts, dataset)
      this.#reflections++
      return Object.keys(texts).length > 0 ? texts : null
    } catch (error) {
      currentSettings().signal?.throwIfAborted()
      if (error instanceof LMError && this.#reflections === 0) throw error
      const reason = error instanceof Error ? error.message : String(error)
      currentSettings().onWarning?.(`GEPA skips iteration ${this.#iteration + 1}: ${reason}`)
      this.#skip(log, reason)
      return null
    }
  }

  async #selectComponents(parent: Parent, trajectories: readonly Trajectory[]): Promise<readonly string[]> {
    const { components } = this.options
    const known = Object.keys(parent.texts)
    if (components === 'all') return known
    if (components === 'round_robin') return [this.pool.nextComponent(parent.index)]
    const chosen = await components({ ...this.#state, candidate: parent.index, texts: parent.texts, trajectories })
    const unknown = chosen.find((name) => !known.includes(name))
    if (unknown === undefined) return chosen
    throw new OptionError(`The component selector named '${unknown}'; the program's predictors are ${known.join(', ')}.`)
  }

  /** A proposal that fails is asked for once more. */
  async #askTwice(candidate: Texts, dataset: Readonly<Record<string, readonly ReflectiveExample[]>>): Promise<Texts> {
    try {
      return await this.#ask(candidate, dataset)
    } catch {
      currentSettings().signal?.throwIfAborted()
      return this.#ask(candidate, dataset)
    }
  }

  async #ask(candidate: Texts, dataset: Readonly<Record<string, readonly ReflectiveExample[]>>): Promise<Texts> {
    const { proposer } = this.options
    const lm = this.options.reflectionLm ?? currentSettings().lm
    const componentsToUpdate = Object.keys(dataset)
    if (proposer) return context({ lm }, () => proposer({ candidate, reflectiveDataset: dataset, componentsToUpdate }))
    const texts: Record<string, string> = {}
    for (const name of componentsToUpdate) {
      const prompt = reflectionPrompt(candidate[name]!, dataset[name]!)
      const { outputs } = await lm!.call({ prompt, signal: currentSettings().signal })
      texts[name] = readInstruction(outputs[0]?.text ?? '')
    }
    return texts
  }

  // ---------------------------------------------------------------- merging

  /** Merges when the last iteration found a candidate and a merge is due. Answers whether that took the iteration. */
  async #merge(): Promise<boolean> {
    const merger = this.#merger
    const wanted = merger !== null && merger.due > 0 && this.#lastFoundOne
    this.#lastFoundOne = false
    const merge = wanted ? merger.propose() : null
    if (!merge) return false
    const { texts, parents, ids } = merge
    const { pool } = this
    const { scores } = await this.program.score(
      this.program.build(texts),
      ids.map((id) => this.options.valset[id]!),
    )
    pool.metricCalls += ids.length
    const log = this.#log({ mergedCandidates: parents, subsampleIds: ids, newSubsampleScores: scores })
    const needed = Math.max(...parents.map((parent) => sum(ids.map((id) => pool.entries[parent]!.scores[id]!))))
    if (sum(scores) < needed) return true
    log['newCandidate'] = await this.#keep({
      texts,
      parents,
      label: `candidate ${pool.entries.length}, of ${parents.join(' and ')}`,
    })
    merger!.keep()
    return true
  }

  #log(entry: TrialLog): TrialLog {
    this.search.trialLogs[this.#iteration] = entry
    return entry
  }

  #skip(log: TrialLog, reason: string): void {
    log['skipped'] = reason
  }
}

function total(trajectories: readonly Trajectory[]): number {
  return sum(trajectories.map(({ score }) => score))
}
