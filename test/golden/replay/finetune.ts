// Replays of golden/dspy: BootstrapFinetune.
import { BootstrapFinetune } from '../../../src/optimize'
import { type BaseLM, ChatAdapter, context, Example, fieldsOf } from '../../../src/program'
import { type Difference, firstDifference, type GoldenCase, type Replay } from './case'
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

interface Input {
  readonly program: ProgramDescription
  readonly trainset: readonly Row[]
  readonly input_keys: readonly string[]
  readonly lm_script: LMScript
  readonly metric: MetricDescription | null
  readonly options: Row
  readonly student_demos: Record<string, Row[]>
}

export const finetuneReplays: Record<string, Replay> = { bootstrap_finetune: replayFinetune }

async function replayFinetune({ input, expected }: GoldenCase): Promise<Difference | null> {
  const { program, trainset, input_keys, lm_script, metric, options, student_demos } = input as Input
  const { train_kwargs: trainKwargs, ...rest } = options
  const lm = new TunableLM(lm_script, 'scripted/model', [])
  const student = buildProgram(program)
  student.setLm(lm)
  for (const [name, predictor] of student.namedPredictors())
    predictor.demos = (student_demos[name] ?? []).map((row) => new Example(row))
  const optimizer = new BootstrapFinetune({
    metric: metric && buildMetric(metric),
    numThreads: 1,
    ...camelOptions(rest),
    ...(trainKwargs ? { trainKwargs: trainKwargs as object } : {}),
  })
  const examples = examplesOf(trainset, input_keys)
  const tuned = await context({ adapter: new ChatAdapter() }, () => optimizer.compile(student, { trainset: examples }))
  return firstDifference(expected, {
    ok: true,
    events: lm.events,
    models_after: Object.fromEntries(tuned.namedPredictors().map(([name, predictor]) => [name, predictor.lm!.model])),
    demos_after: demosOf(tuned),
  })
}

/** Its provider notes what it is asked for, and names the trained model after the first. */
class TunableLM extends ScriptedLM {
  readonly provider = {
    kill: async () => void this.events.push({ event: 'kill' }),
    finetune: async (_: BaseLM, { trainData, trainKwargs }: { trainData: readonly object[]; trainKwargs: object }) => {
      const train_data = trainData.map((row) => fieldsOf(row))
      this.events.push({ event: 'finetune', model: this.name, train_data, train_data_format: 'chat', train_kwargs: trainKwargs })
      return new TunableLM(this.script, `${this.name}-ft`, this.events)
    },
  }

  constructor(
    script: LMScript,
    private readonly name: string,
    readonly events: Row[],
  ) {
    super(script)
    Object.assign(this, { model: name })
  }
}
