// Whole GRPO steps through a server process: program layer, HTTP, rollouts, reward, update. The model's weights are random, so its text says
// nothing: the adapter takes any text for an answer and the metric rewards it by chance, which leaves every row something to learn.

import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { arbor, dspy, LoraConfig } from '../src'
import type { StepRecord } from '../src/protocol'
import { loadTokenizer } from '../src/server/tokenizer'
import type { Step, Workload } from './_gpu-work'
import { writeRandomModel } from './_random-model'
import { RANK } from './_work'

export interface ServerSteps {
  /** Of each step after those that warm up: from the answer to the step before until its own answer is on the way. */
  readonly records: readonly StepRecord[]
  /** GiB in use while the server still holds everything. */
  readonly used: number | null
  readonly loadSeconds: number
  readonly prompt: number
}

export interface ServerWishes {
  /** The compiled command line, or this very file where it is a bundle. */
  readonly entry: string
  readonly device: string
  readonly precision: string
  readonly warmUp: number
  readonly repeat: number
  readonly used: () => number | null
}

class AnyText extends dspy.Adapter {
  override format(_signature: dspy.Signature, _demos: readonly object[], inputs: object) {
    return [{ role: 'user' as const, content: String((inputs as { question: string }).question) }]
  }
  tryParse(_signature: dspy.Signature, completion: string) {
    return { fields: { answer: completion } }
  }
  formatFieldStructure() {
    return ''
  }
  formatUserMessage() {
    return ''
  }
  formatAssistantMessage(_signature: dspy.Signature, outputs: Readonly<Record<string, unknown>>) {
    return String(outputs['answer'])
  }
}

class Asking extends dspy.Module {
  answer = new dspy.Predict('question -> answer')
  forward({ question }: { question: string }) {
    return this.answer.call({ question })
  }
}

export async function serverSteps(workload: Workload, wishes: ServerWishes): Promise<ServerSteps> {
  const work = mkdtempSync(join(tmpdir(), 'arbor-bench-'))
  const folder = join(work, 'random-model')
  let server: Served | null = null
  try {
    writeRandomModel(folder, workload.json)
    const started = performance.now()
    server = await serve(folder, join(work, 'storage'), wishes)
    const loadSeconds = (performance.now() - started) / 1000
    const { records, prompt } = await train(folder, server.baseUrl, workload, wishes)
    return { records: records.slice(wishes.warmUp), used: wishes.used(), loadSeconds, prompt }
  } finally {
    await server?.close()
    rmSync(work, { recursive: true, force: true })
  }
}

async function train(folder: string, baseUrl: string, { step }: Workload, { warmUp, repeat }: ServerWishes) {
  const name = `openai/arbor:${folder}`
  const lm = new dspy.LM(name, { provider: new arbor.ArborProvider(), apiBase: baseUrl, temperature: 1, maxTokens: step.fresh })
  dspy.configure({ lm, adapter: new AnyText() })
  const steps = warmUp + repeat
  const { examples, prompt } = await questions(folder, step, step.groups * steps)
  const compiler = new arbor.ArborGRPO({
    metric: (_example, prediction) => chance(String(prediction.answer)),
    numDspyExamplesPerGrpoStep: step.groups,
    numRolloutsPerGrpoStep: step.rollouts,
    numTrainSteps: steps,
    checkpoint: 'none',
    trainKwargs: { lora_config: new LoraConfig({ r: RANK, lora_alpha: 2 * RANK }), learning_rate: 1e-4 },
  })
  await compiler.compile(new Asking(), { trainset: examples })
  return { records: compiler.run!.records, prompt }
}

/** Questions of so many tokens in the server's chat template, the first ones common: words of the data set, in an order of their own. */
async function questions(folder: string, { prompt, common }: Step, count: number) {
  const { trainset } = await dspy.loadExamples('data/simple-qa', { inputs: ['question'] })
  const words = trainset.flatMap(({ question }) => String(question).split(' '))
  const tokenizer = await loadTokenizer({ name: 'random', kind: 'folder', path: folder })
  const chat = (text: string, end: string) => tokenizer.encode(`<|im_start|>user\n${text}${end}`).length
  /** As many words as fit: the number is found by halving, as encoding a text for each word would take minutes. */
  const fill = (text: string, from: number, fits: (text: string) => boolean) => {
    const longer = (count: number) =>
      [text, ...Array.from({ length: count }, (_, i) => words[(from + i) % words.length]!)].join(' ')
    let [count, tooMany] = [0, 1024]
    while (count + 1 < tooMany) {
      const middle = (count + tooMany) >> 1
      if (fits(longer(middle))) count = middle
      else tooMany = middle
    }
    return longer(count)
  }
  const end = '<|im_end|>\n<|im_start|>assistant\n'
  const shared = common === 0 ? '' : fill('All of them begin so:', 0, (text) => chat(text, '') <= common)
  const texts = Array.from({ length: count }, (_, i) => fill(`${shared} ${i}`, 7919 * i, (text) => chat(text, end) <= prompt))
  const examples = texts.map((question) => new dspy.Example({ question, answer: '' }).withInputs('question'))
  return { examples, prompt: Math.round(texts.reduce((sum, text) => sum + chat(text, end), 0) / count) }
}

/** In [0, 1), by the text alone. */
function chance(text: string): number {
  let hash = 2166136261
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 16777619)
  return (hash >>> 0) / 2 ** 32
}

interface Served {
  readonly baseUrl: string
  close(): Promise<void>
}

async function serve(model: string, storage: string, { entry, device, precision }: ServerWishes): Promise<Served> {
  const options = [
    '--model',
    model,
    '--storage',
    storage,
    '--device',
    device,
    '--precision',
    precision,
    '--owner-pipe',
    '--ready-line',
  ]
  const child = spawn(process.execPath, ['--single-threaded-gc', entry, 'serve', ...options], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()))
  const baseUrl = await readyLine(child)
  return {
    baseUrl,
    close: async () => {
      child.stdin!.end()
      await ended
    },
  }
}

async function readyLine(child: ChildProcess): Promise<string> {
  for await (const line of createInterface({ input: child.stdout! }))
    if (line.startsWith('{')) return (JSON.parse(line) as { base_url: string }).base_url
  throw new Error(`the server ended before it was ready (exit code ${child.exitCode})`)
}
