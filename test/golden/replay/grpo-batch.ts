// Replays of golden/dspy: GRPO with `compat`, and the requests of arbor-ai's job.
import { ArborError } from '../../../src/errors'
import { ArborGRPO } from '../../../src/optimize'
import type { DspyGrpoProgress } from '../../../src/optimize/dspy-session'
import {
  ArborReinforceJob,
  type CheckpointDetails,
  type ReinforceGroup,
  type ReinforceJob,
} from '../../../src/optimize/reinforce-job'
import {
  type Adapter,
  ChatAdapter,
  context,
  Example,
  JSONAdapter,
  type LMOptions,
  type Module,
  setProgressObserver,
  XMLAdapter,
} from '../../../src/program'
import type { GRPOStatus, StepSample } from '../../../src/protocol'
import { type Difference, firstDifference, type GoldenCase, type Outcome, type Replay } from './case'
import {
  buildMetric,
  buildProgram,
  camelOptions,
  demosOf,
  examplesOf,
  type MetricDescription,
  type ProgramDescription,
} from './program'
import { type LMScript, ScriptedLM } from './scripted-lm'

type Row = Record<string, unknown>
type AdapterName = { readonly name: string; readonly options?: { readonly use_json_adapter_fallback?: boolean } }

interface Input {
  readonly optimizer: 'dspy.GRPO' | 'ArborGRPO'
  readonly program: ProgramDescription
  readonly input_keys: readonly string[]
  readonly trainset: readonly Row[]
  readonly valset?: readonly Row[]
  readonly metric: MetricDescription
  readonly options: Row
  readonly settings_adapter: AdapterName | null
  readonly optimizer_adapter?: AdapterName
  readonly lm_kwargs?: Row
  readonly student_demos?: Record<string, Row[]>
  readonly teachers?: readonly ('student' | { readonly demos: Record<string, Row[]> })[]
  readonly pending_schedule: readonly (readonly number[])[] | string
  readonly status_replies?: readonly (readonly number[])[]
  readonly lm_script: LMScript
}

interface Expected {
  readonly ok: boolean
  readonly events: readonly (Row & { event: string })[]
  readonly lm_call_count: number
  readonly lm_cache_after: boolean
  readonly rollout_calls: readonly Row[]
  readonly demos_after?: Row
  readonly compiled?: boolean
  readonly validation_scores?: Row
  readonly best_validation_score?: number | null
  readonly best_validation_step?: number | null
}

export const grpoReplays: Record<string, Replay> = { grpo_batch: replayGrpo, arbor_http: replayHttp }

async function replayGrpo({ input, expected }: GoldenCase): Promise<Outcome> {
  const given = input as Input
  const wanted = expected as Expected
  const world = new World(given)
  const before = setProgressObserver(({ payload }) => world.hear(payload as DspyGrpoProgress))
  try {
    const { compat } = await world.run()
    if (!wanted.ok) return { path: 'ok', expected: false, got: true }
    const own = compat!.run!
    return firstDifference(comparable(wanted), {
      ...world.outcome(),
      ok: true,
      same_object_returned: true,
      compiled: world.student.compiled,
      demos_after: demosOf(world.student),
      ...(wanted.validation_scores
        ? {
            validation_scores: Object.fromEntries(own.validationScores),
            best_validation_score: own.bestValidationScore,
            best_validation_step: own.bestValidationStep,
          }
        : {}),
    })
  } catch (error) {
    // What is refused is compared, and when; the words are ours.
    if (wanted.ok || !(error instanceof ArborError)) throw error
    const { error: _, ...rest } = comparable(wanted)
    return firstDifference(rest, { ...world.outcome(), ok: false })
  } finally {
    setProgressObserver(before)
  }
}

/** Warnings are in our own words, elsewhere; of a validation report the score counts. */
function comparable(expected: Expected): Row {
  const events = expected.events.flatMap((event) => {
    if (event.event !== 'log') return [event]
    const report = /^Student program (training|validation) set score .*: ([-\d.e]+)$/.exec(String(event['message']))
    return report ? [{ event: 'report', set: report[1], score: Number(report[2]) }] : []
  })
  return { ...expected, events }
}

/** One case: its program, its model, its server, and everything that happened. */
class World {
  readonly student: Module
  readonly #events: Row[] = []
  readonly #lm: CachedLM
  #callsTold = 0
  #steps = 0
  #asked = 0

  constructor(readonly given: Input) {
    const { program, lm_script, lm_kwargs = {}, student_demos = {} } = given
    this.#lm = new CachedLM(lm_script, camelOptions(lm_kwargs), {
      reinforce: async (lm: CachedLM, train_kwargs: Row) => {
        this.#note({
          event: 'initialize',
          model: 'scripted/policy',
          train_kwargs,
          lm_kwargs: lm.wireOptions(),
          lm_cache: lm.cache,
        })
        return this.#job()
      },
    })
    this.student = buildProgram(program)
    this.student.setLm(this.#lm)
    giveDemos(this.student, student_demos)
  }

  async run(): Promise<ArborGRPO> {
    const { optimizer, options, metric, trainset, valset, input_keys, teachers, settings_adapter, optimizer_adapter } = this.given
    const { train_kwargs: trainKwargs, ...rest } = options
    const grpo = new ArborGRPO({
      ...camelOptions(rest),
      metric: buildMetric(metric),
      compat: optimizer === 'ArborGRPO' ? 'dspy' : 'dspy.GRPO',
      ...(trainKwargs ? { trainKwargs } : {}),
      ...(optimizer_adapter ? { adapter: adapterOf(optimizer_adapter) } : {}),
    })
    const sets = {
      trainset: examplesOf(trainset, input_keys),
      ...(valset ? { valset: examplesOf(valset, input_keys) } : {}),
      ...(teachers ? { teacher: teachers.map((one) => this.#teacher(one)) } : {}),
    }
    await context({ adapter: settings_adapter && adapterOf(settings_adapter) }, () => grpo.compile(this.student, sets))
    return grpo
  }

  #teacher(one: 'student' | { readonly demos: Record<string, Row[]> }): Module {
    if (one === 'student') return this.student
    const copy = this.student.deepcopy()
    giveDemos(copy, one.demos)
    return copy
  }

  /** What the optimizer reports. */
  hear(payload: DspyGrpoProgress): void {
    if (!payload || typeof payload !== 'object') return
    if ('epoch' in payload)
      this.#note({ event: 'epoch', epoch: payload.epoch.epoch, shuffled_trainset_ids: [...payload.epoch.ids] })
    else if ('selected' in payload)
      this.#note({
        event: 'select',
        train_step_idx: payload.selected.step,
        example_indices: payload.selected.examples.map((index) => index % this.given.trainset.length),
      })
    else if ('validation' in payload) {
      const { score, trainScore } = payload.validation
      if (trainScore !== null) this.#note({ event: 'report', set: 'training', score: trainScore })
      if (this.given.valset) this.#note({ event: 'report', set: 'validation', score })
    }
  }

  outcome(): Row {
    this.#tellCalls()
    const { calls } = this.#lm
    return {
      events: this.#events,
      lm_call_count: calls.length,
      lm_cache_after: (this.student.predictors()[0]!.lm as CachedLM).cache,
      rollout_calls: this.#lm.brief('n_messages').slice(0, 8),
    }
  }

  #note(event: Row): void {
    this.#tellCalls()
    this.#events.push(structuredClone(event))
  }

  #tellCalls(): void {
    const count = this.#lm.calls.length - this.#callsTold
    this.#callsTold = this.#lm.calls.length
    if (count > 0) this.#events.push({ event: 'lm_calls', count })
  }

  #job(): ReinforceJob {
    return {
      model: 'scripted',
      getStatus: async () => {
        const pending_batch_ids = this.#pending()
        this.#note({ event: 'get_status', pending_batch_ids })
        return { pending_batch_ids }
      },
      pause: async () => this.#note({ event: 'sleep', seconds: 1 }),
      step: async (groups: readonly ReinforceGroup[]) => {
        this.#steps++
        this.#note({ event: 'step', train_data_format: 'grpo_chat', train_data: groups })
      },
      saveCheckpoint: async (checkpoint_name: string, details: CheckpointDetails) =>
        this.#note({ event: 'save_checkpoint', checkpoint_name, ...details }),
      terminate: async () => this.#note({ event: 'terminate' }),
    }
  }

  #pending(): readonly number[] {
    const { status_replies: replies, pending_schedule: schedule } = this.given
    const at = (list: readonly (readonly number[])[], i: number) => list[Math.min(i, list.length - 1)]!
    if (replies) return at(replies, this.#asked++)
    return typeof schedule === 'string' ? [this.#steps] : at(schedule, this.#steps)
  }
}

function giveDemos(program: Module, demos: Record<string, Row[]>): void {
  for (const [name, predictor] of program.namedPredictors())
    if (demos[name]) predictor.demos = demos[name].map((row) => new Example(row))
}

function adapterOf({ name, options }: AdapterName): Adapter {
  const fallback = options?.use_json_adapter_fallback === false ? { fallback: null } : {}
  if (name === 'json') return new JSONAdapter()
  return name === 'xml' ? new XMLAdapter(fallback) : new ChatAdapter(fallback)
}

/** With the cache's flag and whoever trains it; copies share calls and answers. */
class CachedLM extends ScriptedLM {
  cache = true

  constructor(
    script: LMScript,
    options: LMOptions,
    readonly provider: object,
  ) {
    super(script, options)
  }

  override copy({ cache, ...changes }: LMOptions = {}): CachedLM {
    return Object.assign(super.copy(changes), { cache: cache ?? this.cache }) as CachedLM
  }

  wireOptions(): Row {
    const snake = (key: string) => key.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)
    return Object.fromEntries(Object.entries(this.options).map(([key, value]) => [snake(key), value]))
  }
}

// ---------------------------------------------------------------- arbor_http

type HttpCall =
  | 'initialize'
  | 'get_status'
  | 'terminate'
  | { readonly step: readonly { batch_id: number; group: StepSample[]; metrics?: Record<string, number> }[] }
  | { readonly save_checkpoint: { checkpoint_name: string; score: number; metadata: Row } }

interface HttpInput {
  readonly lm: { readonly model: string; readonly kwargs: { readonly api_base: string } }
  readonly train_kwargs: Row
  readonly calls: readonly HttpCall[]
}

async function replayHttp({ input, expected }: GoldenCase): Promise<Difference | null> {
  const { lm, train_kwargs, calls } = input as HttpInput
  const requests: Row[] = []
  const post = async (url: URL, json: object): Promise<GRPOStatus> => {
    const headers = { 'Content-Type': 'application/json' }
    requests.push({ method: 'POST', url: url.href, headers, json: structuredClone(json) })
    return answerOf(url.pathname.split('/').at(-1)!, json as { checkpoint_name?: string })
  }
  if (!(expected as { ok: boolean }).ok) {
    try {
      new ArborReinforceJob('http://localhost/v1/', 'm', train_kwargs, post)
      return { path: 'ok', expected: false, got: true }
    } catch (error) {
      if (error instanceof ArborError) return null
      throw error
    }
  }
  const job = new ArborReinforceJob(lm.kwargs.api_base, lm.model, train_kwargs, post)
  const lm_model_after: Row = { start: job.model }
  let status: object = {}
  for (const call of calls) {
    if (call === 'initialize') await job.initialize()
    else if (call === 'get_status') status = await job.getStatus()
    else if (call === 'terminate') await job.terminate()
    else if ('step' in call) await job.step(call.step)
    else await job.saveCheckpoint(call.save_checkpoint.checkpoint_name, call.save_checkpoint)
    const name = typeof call === 'string' ? call : Object.keys(call)[0]!
    if (['initialize', 'step', 'terminate'].includes(name)) lm_model_after[name] = job.model
  }
  const value = { requests, lm_model_after, status, checkpoints: job.checkpoints, last_checkpoint: job.lastCheckpoint }
  return firstDifference(expected, { ok: true, value })
}

/** A server as the vectors had it: "m-0" until the first step, "m-1" from then on. */
function answerOf(path: string, { checkpoint_name: name = '' }: { checkpoint_name?: string }): GRPOStatus {
  const [job_id, checkpoint] = ['grpo:1', { checkpoint_dir: '/d' }]
  const later = path === 'step' || path === 'terminate'
  const common = { job_id, current_model: later ? 'm-1' : 'm-0', checkpoints: {}, pending_batch_ids: [0, 1] }
  return (path === 'checkpoint' ? { ...common, checkpoints: { [name]: checkpoint }, last_checkpoint: name } : common) as never
}
