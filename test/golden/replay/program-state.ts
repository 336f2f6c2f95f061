// Replays of saved programs: paths of predictors, the dumped state, the file, and what is left after a reset.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ChainOfThought, LM, Module, Predict } from '../../../src/program'
import { type Difference, firstDifference, type GoldenCase, type Replay } from './case'
import { readSignature, type SignatureDescription } from './dspy'
import { buildProgram, demosOf, type ProgramDescription } from './program'

type Row = Record<string, unknown>

export const programStateReplays: Record<string, Replay> = { program_state: replayState }

async function replayState({ input, expected }: GoldenCase): Promise<Difference | null> {
  if ('attributes_in_order' in (input as Row)) return firstDifference(expected, orderOf(input as Row))
  if ('lm' in (input as Row)) return firstDifference(expected, withLm(input as { signature: SignatureDescription; lm: Row }))
  return replayFile(input as { program: ProgramDescription; demos: Record<string, Row[]> }, expected as Row)
}

const names = (program: Module) => program.namedPredictors().map(([name]) => name)

function withLm({ signature, lm }: { signature: SignatureDescription; lm: Row }): Row {
  const predict = new Predict(readSignature(signature))
  predict.lm = new LM(lm.model as string, {
    ...{ temperature: lm.temperature as number, maxTokens: lm.max_tokens as number },
    ...{ apiKey: lm.api_key as string, apiBase: lm.api_base as string },
  })
  return { named_predictors: names(predict), dump_state: predict.dumpState() }
}

async function replayFile(
  { program: description, demos }: { program: ProgramDescription; demos: Record<string, Row[]> },
  expected: Row,
): Promise<Difference | null> {
  const program = buildProgram(description)
  for (const [name, predictor] of program.namedPredictors()) predictor.demos = demos[name.split('.')[0]!] ?? []
  const loaded = buildProgram(description)
  const folder = mkdtempSync(join(tmpdir(), 'golden-state-'))
  try {
    await program.save(join(folder, 'program.json'))
    await loaded.load(join(folder, 'program.json'))
    const { saved_file_text, saved_metadata_keys: _, ...rest } = expected
    // Of the environment's versions only DSPy's is known here, and Python checks no version that a file doesn't name.
    const untilVersions = (text: string) => text.slice(0, text.indexOf('"dependency_versions"'))
    return firstDifference(
      { ...rest, text: untilVersions(saved_file_text as string) },
      {
        named_predictors: names(program),
        dump_state: program.dumpState(),
        dump_after_load_equals: firstDifference(program.dumpState(), loaded.dumpState()) === null,
        reset_copy_demos: Object.fromEntries(
          Object.entries(demosOf(loaded.resetCopy())).map(([name, rows]) => [name, rows.length]),
        ),
        text: untilVersions(readFileSync(join(folder, 'program.json'), 'utf8')),
      },
    )
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

/** The vectors' module with every way to hold a predictor, in their order. */
function orderOf({ sig0, sig1 }: Row): Row {
  const first = sig0 as string
  const second = sig1 as string
  class Inner extends Module {
    p: Predict
    constructor(signature: string) {
      super()
      this.p = new Predict(signature)
    }
    forward() {
      return this.p.call({})
    }
  }
  class Outer extends Module {
    first = new ChainOfThought(first)
    many = [new Predict(second), new Inner(first)]
    table = { x: new Predict(second), y: new ChainOfThought(second) }
    pair = [new Predict(first), new Predict(second)]
    alias = this.many[0]
    frozen = Object.assign(new Inner(first), { compiled: true })
    last = new Inner(second)
    nested_list = [[new Predict(first)]]
    forward() {
      return this.first.call({})
    }
  }
  const program = new Outer()
  return { named_predictors: names(program), named_sub_modules: program.namedSubModules().map(([name]) => name) }
}
