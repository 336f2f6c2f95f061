// A whole GRPO step as a notebook sees it: program layer, HTTP, server, rollouts, reward, update; beside it transformers + peft doing the
// model's share of the same work (their rollouts and their training pass, no program layer).

import { arbor, dspy, LoraConfig } from '../src'
import { startContenders } from './_contenders'
import { stepShape } from './_engine'
import { watchLatency } from './_latency'
import { peakMemory } from './_measures'
import { benchOptions } from './_options'
import { print, type Row } from './_report'

class SimpleQA extends dspy.Module {
  answer = new dspy.ChainOfThought('question -> answer')
  forward({ question }: { question: string }) {
    return this.answer.call({ question })
  }
}

async function main(): Promise<void> {
  const { model, device, precision, rounds, peers, microBatch, alone, tiny } = benchOptions()
  const maxTokens = tiny ? 96 : 64
  const server = await arbor.startServer(model, { device, precision, onLog: (line) => process.stderr.write(`${line}\n`) })
  const provider = new arbor.ArborProvider()
  const lm = new dspy.LM(`openai/arbor:${model}`, { provider, apiBase: server.baseUrl, temperature: 1, maxTokens })
  dspy.configure({ lm, adapter: tiny ? new dspy.ChatAdapter() : new dspy.XMLAdapter() })
  const program = new SimpleQA()
  if (!tiny) program.answer.demos = await dspy.loadDemos('data/simple-qa')
  const { trainset } = await dspy.loadExamples('data/simple-qa', { inputs: ['question'] })
  const compiler = new arbor.ArborGRPO({
    metric: (example, prediction) => prediction.answer.includes(example.answer),
    numDspyExamplesPerGrpoStep: 8,
    numRolloutsPerGrpoStep: 4,
    numTrainSteps: rounds + 1, // the first warms up
    checkpoint: 'none',
    trainKwargs: { lora_config: new LoraConfig({ r: 16, lora_alpha: 32 }), learning_rate: 1e-4 },
  })
  const watch = watchLatency(server.baseUrl)
  await compiler.compile(program, { trainset })
  const latency = await watch.end()
  const measured = await measureServer(server, compiler.run!.records)
  const records = compiler.run!.records.slice(1)
  await server.close()
  const rows: Row[] = [
    {
      name: 'arbor-nb, whole step',
      rounds: records.map((r) => r.seconds_train + r.seconds_between),
      note:
        `${measured.precision}: ${Math.round(100 * measured.share_outside_engine)} % of the time outside the engine, ` +
        `server's memory ${measured.peak_memory_mib ?? '?'} MiB`,
    },
    { name: '  of it the update', rounds: records.map((r) => r.seconds_train) },
    { name: '  of it rollouts, reward, HTTP, program', rounds: records.map((r) => r.seconds_between) },
  ]
  if (!alone) {
    // Our completions end when they end; the peer gets their mean length, rounded up.
    const fresh = Math.ceil(records.reduce((sum, r) => sum + r.completion_length_mean, 0) / records.length)
    const asked = { model, shape: { ...stepShape({ tiny }), fresh }, peers, microBatch }
    const [rolling, training] = [await startContenders('rollouts', asked), await startContenders('train-step', asked)]
    for (const [i, { name }] of training.list.entries()) {
      const times: number[] = []
      for (let round = 0; round < rounds; round++) times.push((await rolling.list[i]!.run()) + (await training.list[i]!.run()))
      rows.push({ name: `${name}: rollouts + training`, rounds: times, note: `${fresh} new tokens each` })
    }
    for (const started of [rolling, training]) started.close()
  }
  const tokens = records.map((r) => `${r.tokens}/${r.tokens_unshared}`).join(' ')
  for (const [route, ms] of Object.entries(latency))
    process.stderr.write(
      `${route}, asked ${ms.asked} times during it: p50 ${ms.p50} ms, p99 ${ms.p99} ms, at most ${ms.max} ms\n`,
    )
  print(
    `grpo-step: 8 x 4 on data/simple-qa, at most ${maxTokens} new tokens; ${model}; tokens computed/unshared ${tokens}`,
    rows,
    { latency, ...measured },
  )
}

/** Asked of the server after its last step: how much of the steps' time its engine was at work, and the most memory it held. */
async function measureServer(
  { baseUrl, pid }: { baseUrl: string; pid: number },
  records: readonly { seconds_train: number; seconds_between: number }[],
) {
  const answer = await fetch(new URL('health', baseUrl))
  const { busy_seconds: busy, precision } = (await answer.json()) as { busy_seconds: number; precision: string }
  const whole = records.reduce((sum, record) => sum + record.seconds_train + record.seconds_between, 0)
  return { precision, share_outside_engine: Number((1 - busy / whole).toFixed(3)), peak_memory_mib: peakMemory(pid) }
}

void main()
