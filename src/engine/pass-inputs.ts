// What a pass of inference reads and answers, on the device and as the host fills it. Views of the buffers are kept for as long as passes have the same
// size, and what goes to the device goes together: a plan's numbers, the samples' floats, and of the contexts what is new.

import type { BatchLimits, BatchPlan } from './batch-plan'
import type { Model } from './model'
import type { Arena, Backend, Tensor, TypedArray } from './ops/ops'
import { FLOATS, INTS, planNumbers, planPlaces, SEGMENTS } from './plan-arrays'
import { emptyMask, type SampledToken } from './sampling'
import type { Sequence, SequenceToken } from './sequence'

/** Tensors of a pass of so many rows and samples. */
export type PassViews = ReturnType<PassInputs['views']>

export class PassInputs {
  readonly liveSegments: Tensor
  readonly context: Tensor
  readonly history: Tensor
  readonly allowed: Tensor
  /** The tokens that were sampled last, from the first on. */
  readonly latest: Tensor
  /** Plans' numbers and, from `answersAt` on, tokens and logprobs: what is of different types lies together here, whatever a pass's size, and travels as one. */
  private readonly together: Arena
  private readonly answersAt: number
  private readonly numbers: Tensor
  private readonly fed: Tensor
  private readonly sampled: Tensor
  private readonly logits: Tensor
  /** In turns: while a pass's answers are waited for, the next one's are asked for. */
  private readonly hostAnswers: readonly [Float32Array, Float32Array]
  private turn = 0
  /** What those answers are read into, again and again: 512 objects a pass were a third of what the collector got. */
  private readonly found: readonly [Sampled[], Sampled[]] = [[], []]
  private hostHistory = new Int32Array(0)
  private kept: PassViews | null = null

  constructor(
    private readonly backend: Backend,
    arena: Arena,
    { limits, model: { config, activationType: activations } }: { limits: BatchLimits; model: Model },
  ) {
    const { sequences } = limits
    this.context = arena.tensor([limits.context], 'i32')
    this.liveSegments = arena.tensor([SEGMENTS * sequences, 4], 'i32')
    this.fed = arena.tensor([sequences], 'i32')
    this.history = arena.tensor([sequences * Math.min(config.contextLength, config.vocab)], 'i32')
    this.sampled = arena.tensor([sequences, config.hidden], activations)
    this.logits = arena.tensor([sequences, config.vocab])
    this.allowed = arena.tensor([sequences, emptyMask(config.vocab).length], 'i32')
    const answers = 3 * sequences + 16
    const numbers = planNumbers(limits)
    this.together = backend.arena(4 * (numbers + answers) + 128)
    this.numbers = this.together.tensor([numbers], 'i32')
    this.answersAt = this.together.mark()
    this.latest = this.together.tensor([sequences], 'i32')
    this.hostAnswers = [new Float32Array(answers), new Float32Array(answers)]
  }

  /** Takes over all that the plan says. */
  upload(plan: BatchPlan): PassViews {
    const { backend } = this
    const views = this.viewsOf(plan)
    if (plan.samples > 0) this.fillSampling(plan)
    const { used, contexts } = plan
    if (views.used?.shape[0] !== used.length) views.used = this.numbers.rows(0, used.length)
    backend.upload(views.used, used)
    const { changedFrom: from, end } = contexts
    if (end > from) backend.upload(this.context.rows(from, end - from), contexts.entries.subarray(from, end))
    return views
  }

  /**
   * The first `count` of what was sampled. Asked for now, and waited for by whoever calls the answer: another pass may be enqueued before. The tokens are
   * good until the pass after that one is asked for its own.
   */
  fetch({ answers, hostAnswers, tokenRoom }: PassViews, count: number): () => Promise<SequenceToken[]> {
    this.turn = 1 - this.turn
    const found = this.found[this.turn]!
    const arrived = this.backend.fetch(answers, hostAnswers[this.turn])
    return async () => readAnswers(await arrived(), count, { tokenRoom, found })
  }

  close(): void {
    this.together.close()
  }

  private viewsOf({ rows, samples }: BatchPlan): PassViews {
    if (this.kept?.rows !== rows || this.kept.samples !== samples) this.kept = this.views(rows, samples)
    return this.kept
  }

  views(rows: number, samples: number) {
    const at = planPlaces(rows, samples)
    const part = (start: number, count: number) => this.numbers.rows(start, count)
    const { tokens, logprobs, all, tokenRoom } = this.answersOf(samples)
    return {
      rows,
      samples,
      /** Of `numbers`. */
      used: null as Tensor | null,
      ids: part(at.ids, rows),
      fed: this.fed.rows(0, Math.min(rows, this.fed.shape[0]!)),
      positions: part(at.positions, rows),
      slots: part(at.slots, rows),
      segments: part(at.segments, this.numbers.shape[0]! - at.segments),
      sampleRows: part(at.sampleRows, samples),
      sampled: this.sampled.rows(0, samples),
      sampling: {
        logits: this.logits.rows(0, samples),
        floats: this.floatsOf(samples),
        ints: part(at.ints, INTS * samples),
        tokens,
        logprobs,
      },
      answers: all,
      hostAnswers: this.hostAnswers.map((one) => one.subarray(0, tokenRoom + 2 * samples)),
      tokenRoom,
    }
  }

  private floatsOf(samples: number): Tensor {
    this.together.reset()
    return this.together.tensor([samples, FLOATS])
  }

  /** Tokens, where those of any pass begin; behind them the logprobs; and both as one. */
  private answersOf(samples: number) {
    const { together, answersAt } = this
    together.reset(answersAt)
    const tokens = together.tensor([samples], 'i32')
    const tokenRoom = (together.mark() - answersAt) / 4
    const logprobs = together.tensor([samples, 2])
    together.reset(answersAt)
    return { tokens, logprobs, tokenRoom, all: together.tensor([tokenRoom + 2 * samples]) }
  }

  /** Each sample's sampling values, random number and, under a repetition penalty, the tokens it has seen. */
  private fillSampling({ sampled, samples, floats, ints }: BatchPlan): void {
    let seen = 0
    for (let i = 0; i < sampled.length; i++) {
      const sequence = sampled[i]!
      const { temperature, topP, minP, repetitionPenalty, topK } = sequence.sampling
      const float = FLOATS * i
      const int = INTS * i
      floats[float] = temperature
      floats[float + 1] = topP
      floats[float + 2] = minP
      floats[float + 3] = repetitionPenalty
      floats[float + 4] = sequence.uniform
      floats[float + 5] = 0
      ints[int] = topK
      ints[int + 1] = seen
      ints[int + 2] = sequence.history.size
      ints[int + 3] = sequence.allowed ? i + 1 : 0
      seen += sequence.history.size
    }
    for (let i = sampled.length; i < samples; i++) {
      // as the last one, but bound by nothing: whatever they are, nobody reads them
      floats.copyWithin(FLOATS * i, FLOATS * (i - 1), FLOATS * i)
      ints[INTS * i] = ints[INTS * (i - 1)]!
      ints.fill(0, INTS * i + 1, INTS * (i + 1))
    }
    if (seen > 0) this.uploadHistory(sampled, seen)
  }

  private uploadHistory(sampled: readonly Sequence[], count: number): void {
    if (count > this.hostHistory.length) this.hostHistory = new Int32Array(2 * count)
    let at = 0
    for (const { history } of sampled) for (const token of history) this.hostHistory[at++] = token
    this.backend.upload(this.history.rows(0, count), this.hostHistory.subarray(0, count))
  }
}

type Sampled = { -readonly [Name in keyof SampledToken]: SampledToken[Name] }

/** `answers` are tokens in `tokenRoom` numbers, then pairs of logprobs. */
function readAnswers(
  answers: TypedArray,
  samples: number,
  { tokenRoom, found }: { tokenRoom: number; found: Sampled[] },
): SequenceToken[] {
  const tokens = new Int32Array(answers.buffer, answers.byteOffset, samples)
  while (found.length < samples) found.push({ token: 0, logprob: Number.NaN, plainLogprob: Number.NaN })
  for (let i = 0; i < samples; i++) {
    const at = tokenRoom + 2 * i
    const one = found[i]!
    one.token = tokens[i]!
    one.logprob = answers[at]!
    one.plainLogprob = answers[at + 1]!
  }
  return found.length === samples ? found : found.slice(0, samples)
}
