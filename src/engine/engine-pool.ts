// Several engines as one, each on a GPU of its own with the whole model: rollouts go to whichever has least to do, a training step is computed in parts.
// Every engine holds every policy and makes every update, by the same gradients, so their weights are the same to the last bit.

import { ArborError, BackendError } from '../errors'
import { checkSequences } from './check-step'
import type {
  Completion,
  Engine,
  EngineStatus,
  GenerateControl,
  GenerateRequest,
  ModelInfo,
  ModelSource,
  OpenedPolicy,
  PolicySpec,
  StepConfig,
  TokenStats,
  TrainLoss,
  TrainSequence,
  TrainStats,
} from './engine'
import { ALL_DO_BOTH, type Roles, splitRoles } from './gpu-roles'
import { planParts } from './part-plan'
import type { PoolMember } from './pool-member'
import { addUp } from './pool-status'
import { PoolStep } from './pool-step'

export interface EnginePoolOptions {
  /** Hears how gradients are summed, and what a policy's wish for GPUs came to. */
  readonly log?: (line: string) => void
}

export class EnginePool implements Engine {
  readonly #members: readonly PoolMember[]
  /** Completions under way, of each member. */
  readonly #running: number[]
  readonly #roles = new Map<string, Roles>()
  readonly #log: (line: string) => void
  #info: ModelInfo | null = null
  /** Why no call is taken any more. */
  #lost: Error | null = null

  constructor(members: readonly PoolMember[], { log = () => {} }: EnginePoolOptions = {}) {
    if (members.length === 0) throw new ArborError('A pool needs at least one engine.')
    this.#members = members
    this.#running = members.map(() => 0)
    this.#log = log
  }

  /** On every engine; they must be alike. One that can't ends the pool. */
  async load(source: ModelSource): Promise<ModelInfo> {
    this.#check()
    try {
      const infos = await this.#each((member) => member.load(source))
      this.#info = describe(infos)
    } catch (error) {
      this.#lose(`${source.name} could not be loaded on every engine`, error)
      throw error
    }
    await this.#join()
    return this.#info
  }

  async openPolicy(name: string, spec: PolicySpec): Promise<OpenedPolicy> {
    const roles = splitRoles(this.#members.length, spec.gpus)
    const opened = await this.#open(name, (member) => member.openPolicy(name, spec))
    this.#roles.set(name, roles)
    return { ...opened, gpus: { training: roles.training.length, inference: roles.inference.length, apart: roles.apart } }
  }

  openSaved(name: string, dir: string): Promise<OpenedPolicy> {
    return this.#open(name, (member) => member.openSaved(name, dir))
  }

  /** All completions of a request come from one engine, so its prompt is computed once; whichever it is, they are the same. */
  async generate(request: GenerateRequest, control?: GenerateControl): Promise<Completion[]> {
    this.#check()
    const { inference } = this.#rolesOf(request.policy)
    const least = Math.min(...inference.map((member) => this.#running[member]!))
    const chosen = inference.find((member) => this.#running[member] === least)!
    this.#running[chosen]! += request.seeds.length
    try {
      return await this.#of(chosen, (member) => member.generate(request, control))
    } finally {
      this.#running[chosen]! -= request.seeds.length
    }
  }

  async logprobs(
    policy: string | null,
    sequences: readonly TrainSequence[],
    options: { temperature: number; packTokens?: number },
  ): Promise<TokenStats[]> {
    this.#check()
    if (this.#info) checkSequences(sequences, this.#info)
    const { training } = this.#rolesOf(policy)
    const parts = planParts(sequences, training.length)
    const answers = await Promise.all(
      parts.map((places, part) =>
        this.#of(training[part]!, (member) =>
          member.logprobs(
            policy,
            places.map((place) => sequences[place]!),
            options,
          ),
        ),
      ),
    )
    const all = sequences.map((): TokenStats => ({ logprobs: new Float32Array(), entropies: new Float32Array() }))
    for (const [part, places] of parts.entries()) for (const [i, place] of places.entries()) all[place] = answers[part]![i]!
    return all
  }

  async trainStep(policy: string, sequences: readonly TrainSequence[], loss: TrainLoss, config: StepConfig): Promise<TrainStats> {
    this.#check()
    if (this.#info) checkSequences(sequences, this.#info)
    const empty = sequences.every(({ completion }) => completion.length === 0)
    if (empty || this.#members.length === 1)
      return (await this.#each((member) => member.trainStep(policy, sequences, loss, config)))[0]!
    const { training } = this.#rolesOf(policy)
    const planned = planParts(sequences, training.length)
    const parts = this.#members.map((_, member) => planned[training.indexOf(member)] ?? [])
    const result = await new PoolStep(this.#members, parts, { policy, sequences, loss, config }).run()
    if (!('error' in result)) return result
    this.#loseIfGone(result.member, result.error)
    if (result.divided) this.#lose('An update was made by some engines and not by all', result.error)
    else if (result.groupLeft && !this.#lost) await this.#join() // nobody made the update: all is as it was before
    throw result.error
  }

  /** By one for all. */
  savePolicy(name: string, dir: string): Promise<void> {
    return this.#of(0, (member) => member.savePolicy(name, dir))
  }

  async closePolicy(name: string): Promise<void> {
    await this.#each((member) => member.closePolicy(name))
    this.#roles.delete(name)
  }

  async status(): Promise<EngineStatus> {
    return addUp(await this.#each((member) => member.status()))
  }

  async close(): Promise<void> {
    this.#lost ??= new ArborError('The engine was closed.', { code: 'engine_closed' })
    await Promise.all(this.#members.map((member) => member.close()))
  }

  async #open(name: string, open: (member: PoolMember) => Promise<OpenedPolicy>): Promise<OpenedPolicy> {
    this.#check()
    const calls = this.#members.map((_, i) => this.#of(i, open))
    const settled = await Promise.allSettled(calls)
    const opened = this.#members.filter((_, i) => settled[i]!.status === 'fulfilled')
    if (opened.length < this.#members.length) await Promise.allSettled(opened.map((member) => member.closePolicy(name)))
    return (await Promise.all(calls))[0]!
  }

  #rolesOf(policy: string | null): Roles {
    return (policy === null ? undefined : this.#roles.get(policy)) ?? ALL_DO_BOTH(this.#members.length)
  }

  /** The devices form a group where they can; else gradients go through the host's memory. */
  async #join(): Promise<void> {
    const ranks = this.#members.length
    if (ranks === 1) return
    let joins: Promise<void>[] = []
    try {
      const id = await this.#members[0]!.groupId()
      joins = this.#members.map((member, rank) => member.joinGroup({ id, ranks, rank }))
      await Promise.all(joins)
      this.#log(`${ranks} GPUs sum their gradients among themselves.`)
    } catch (error) {
      await Promise.allSettled(this.#members.map((member) => member.leaveGroup()))
      await Promise.allSettled(joins)
      this.#log(`The gradients of ${ranks} engines are summed in the host's memory, which takes longer (${messageOf(error)}).`)
    }
  }

  /** Resolves when all are through; the first error counts. */
  async #each<Result>(call: (member: PoolMember) => Promise<Result>): Promise<Result[]> {
    this.#check()
    const calls = this.#members.map((_, i) => this.#of(i, call))
    await Promise.allSettled(calls)
    return Promise.all(calls)
  }

  async #of<Result>(index: number, call: (member: PoolMember) => Promise<Result>): Promise<Result> {
    this.#check()
    try {
      return await call(this.#members[index]!)
    } catch (error) {
      this.#loseIfGone(index, error)
      throw error
    }
  }

  /** A thread that ended takes no further call. */
  #loseIfGone(member: number, error: unknown): void {
    if (error instanceof BackendError && error.op === 'worker')
      this.#lose(`Engine ${member} of ${this.#members.length} is gone`, error)
  }

  #lose(what: string, error: unknown): void {
    this.#lost ??= new BackendError(
      `${what} (${messageOf(error)}). Start the server again; a run continues from its last checkpoint.`,
      { op: 'pool', cause: error },
    )
  }

  #check(): void {
    if (this.#lost) throw this.#lost
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}

/** Throws where the engines are not alike: the same seed would give another rollout on another one. */
function describe(infos: readonly ModelInfo[]): ModelInfo {
  const [first] = infos
  const other = infos.find(({ device, dtype }) => device !== first!.device || dtype !== first!.dtype)
  if (other)
    throw new BackendError(
      `The engines of a pool must be alike; one computes in ${first!.dtype} on ${first!.deviceDescription}, another in ${other.dtype} on ${other.deviceDescription}.`,
      { op: 'pool' },
    )
  const counts = new Map<string, number>()
  for (const { deviceDescription: text } of infos) counts.set(text, (counts.get(text) ?? 0) + 1)
  const deviceDescription = [...counts].map(([text, count]) => (count === 1 ? text : `${count} × ${text}`)).join(' and ')
  return { ...first!, deviceDescription }
}
