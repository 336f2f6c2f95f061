// What the end-to-end tests share: the tiny model behind a real server process, and a program whose reward it can learn in seconds.

import { existsSync, mkdtempSync, readFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ensureNative } from '../../src/engine/ops/build-native'
import { packageRoot } from '../../src/engine/package-root'
import {
  ArborGRPO,
  type ArborGRPOOptions,
  ArborProvider,
  type ServerInfo,
  type ServerOptions,
  startServer,
} from '../../src/optimize'
import type { CompileOptions } from '../../src/optimize/arbor-grpo'
import { Adapter, context, Example, LM, type Loose, Module, type ParseResult, Predict, type Signature } from '../../src/program'
import { LoraConfigSchema, type Message, type StepRecord, StepRecordSchema, type TrainKwargs } from '../../src/protocol'

export const ROOT = packageRoot() // also from dist, where the benchmarks run
export const MODEL = join(ROOT, 'test/fixtures/tiny-chat')
export const CLI = join(ROOT, 'dist/src/cli/main.js')
export const LIBRARY = join(ROOT, 'dist/src/index.js')

/** Why these tests can't run on this machine, or null. The native library is built when it isn't there. @throws when the build is missing */
export async function whyNot(): Promise<string | null> {
  for (const file of [CLI, LIBRARY])
    if (!existsSync(file)) throw new Error(`${file} is missing: run "npm run build" first (npm test does).`)
  try {
    await ensureNative()
    return null
  } catch (error) {
    return `the native library can't be built here: ${(error as Error).message}`
  }
}

export function freshFolder(): string {
  return mkdtempSync(join(tmpdir(), 'arbor-e2e-'))
}

/** A server process on the native CPU backend; without `storagePath`, a storage of its own. */
export function serve(options: ServerOptions & { readonly model?: string } = {}): Promise<ServerInfo> {
  const { model = MODEL, ...rest } = options
  return startServer(model, { device: 'cpu', port: 0, storagePath: freshFolder(), ...rest })
}

/** Sends the question as it is and takes any text for the answer: a random model never fails on the format. */
export class PlainTextAdapter extends Adapter {
  override format(signature: Signature, _demos: readonly object[], inputs: object): Message[] {
    return [{ role: 'user', content: this.formatUserMessage(signature, inputs as Loose) }]
  }
  override tryParse(signature: Signature, completion: string): ParseResult {
    return { fields: { [signature.outputFields[0]!.name]: completion } }
  }
  override formatUserMessage(signature: Signature, inputs: Loose): string {
    return String(inputs[signature.inputFields[0]!.name])
  }
  override formatAssistantMessage(signature: Signature, outputs: Loose): string {
    return String(outputs[signature.outputFields[0]!.name])
  }
  override formatFieldDescription(): string {
    return ''
  }
  override formatFieldStructure(): string {
    return ''
  }
}

export class Answering extends Module {
  answer = new Predict('question -> answer')
  forward({ question }: { question: string }) {
    return this.answer.call({ question })
  }
}

export function exampleOf(question: string, answer = ''): Example {
  return new Example({ question, answer }).withInputs('question')
}

export const TRAINSET = ['one', 'two', 'three', 'four', 'five', 'six'].map((question) => exampleOf(question))

/** The share of vowels: a random model is near 0.2, one that learned is near 1. */
export function vowels(_example: Loose, prediction: Loose): number {
  const text = String(prediction['answer'])
  return text.length === 0 ? 0 : [...text].filter((letter) => 'aeiou'.includes(letter)).length / [...text].length
}

export const TRAIN_KWARGS: TrainKwargs = {
  learning_rate: 0.02,
  temperature: 1,
  mask_truncated_completions: false, // a random model seldom ends by itself
  lora_config: LoraConfigSchema.parse({ r: 8, lora_alpha: 16, target_modules: 'all-linear', lora_dropout: 0 }),
}

export const OPTIONS: ArborGRPOOptions = {
  metric: vowels,
  numDspyExamplesPerGrpoStep: 3,
  numRolloutsPerGrpoStep: 4,
  numTrainSteps: 4,
  numStepsForVal: 100,
  checkpoint: 'single-best',
  seed: 7,
  trainKwargs: TRAIN_KWARGS,
}

export interface CompileRun {
  readonly compiler: ArborGRPO
  readonly program: Answering
}

export function tinyLM(server: ServerInfo, options: Loose = {}, model = MODEL): LM {
  return new LM(`openai/arbor:${model}`, {
    provider: new ArborProvider(),
    apiBase: server.baseUrl,
    temperature: 1,
    maxTokens: 10,
    numRetries: 0,
    ...options,
  })
}

/** One compile against `server`. The compiler is given to `watch` before it starts, so that a failed run can be looked at. */
export async function compile(
  server: ServerInfo,
  options: Partial<ArborGRPOOptions> = {},
  rest: Partial<CompileOptions> & { readonly watch?: (compiler: ArborGRPO) => void; readonly lm?: LM } = {},
): Promise<CompileRun> {
  const { watch, lm = tinyLM(server), ...compileOptions } = rest
  const compiler = new ArborGRPO({ ...OPTIONS, ...options })
  watch?.(compiler)
  const program = await context({ lm, adapter: new PlainTextAdapter() }, () =>
    compiler.compile(new Answering(), { trainset: TRAINSET, ...compileOptions }),
  )
  return { compiler, program }
}

/** The error that `run` ends with. @throws when it ends well */
export async function failureOf(run: Promise<unknown>): Promise<Error> {
  const outcome = await run.then(
    () => null,
    (error: Error) => error,
  )
  if (outcome === null) throw new Error('this was expected to fail')
  return outcome
}

export function runFolder(storage: string, jobId: string): string {
  return join(storage, 'runs', jobId.replaceAll(':', '+'))
}

/** The step records on disk, each checked against its schema. */
export function recordsOnDisk(storage: string, jobId: string): StepRecord[] {
  const text = readFileSync(join(runFolder(storage, jobId), 'steps.jsonl'), 'utf8')
  return text
    .trim()
    .split('\n')
    .map((line) => StepRecordSchema.parse(JSON.parse(line)))
}

/** A record without the names and times that no two runs share. */
export function timeless(record: StepRecord): Partial<StepRecord> {
  const { job_id: _, time: __, seconds_train: ___, seconds_between: ____, ...rest } = record
  return rest
}

export function adapterBytes(folder: string): Buffer {
  return readFileSync(join(folder, 'adapter_model.safetensors'))
}

/** Resolves when the process is gone. @throws after `seconds` */
export async function gone(pid: number, seconds: number): Promise<void> {
  const end = Date.now() + 1000 * seconds
  while (isAlive(pid)) {
    if (Date.now() > end) throw new Error(`process ${pid} is still there after ${seconds} s`)
    await sleep(50)
  }
}

export function sleep(milliseconds: number): Promise<void> {
  return new Promise((wake) => setTimeout(wake, milliseconds))
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}
