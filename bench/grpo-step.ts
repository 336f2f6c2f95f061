// A whole GRPO step as a notebook sees it: program layer, HTTP, server, rollouts, reward, update; beside it transformers + peft doing the
// model's share of the same work (their rollouts and their training pass, no program layer).

import { arbor, dspy, LoraConfig } from '../src'
import { benchOptions } from './_options'
import { startPeer } from './_peer'
import { print, type Row } from './_report'

class SimpleQA extends dspy.Module {
  answer = new dspy.ChainOfThought('question -> answer')
  forward({ question }: { question: string }) {
    return this.answer.call({ question })
  }
}

async function main(): Promise<void> {
  const { model, device, rounds, alone } = benchOptions()
  const server = await arbor.startServer(model, { device, onLog: (line) => process.stderr.write(`${line}\n`) })
  const provider = new arbor.ArborProvider()
  const lm = new dspy.LM(`openai/arbor:${model}`, { provider, apiBase: server.baseUrl, temperature: 1, maxTokens: 64 })
  dspy.configure({ lm, adapter: new dspy.XMLAdapter() })
  const program = new SimpleQA()
  program.answer.demos = await dspy.loadDemos('data/simple-qa')
  const { trainset } = await dspy.loadExamples('data/simple-qa', { inputs: ['question'] })
  const compiler = new arbor.ArborGRPO({
    metric: (example, prediction) => prediction.answer.includes(example.answer),
    numDspyExamplesPerGrpoStep: 8,
    numRolloutsPerGrpoStep: 4,
    numTrainSteps: rounds + 1, // the first warms up
    checkpoint: 'none',
    trainKwargs: { lora_config: new LoraConfig({ r: 16, lora_alpha: 32 }), learning_rate: 1e-4 },
  })
  await compiler.compile(program, { trainset })
  const records = compiler.run!.records.slice(1)
  await server.close()
  const rows: Row[] = [
    { name: 'arbor-nb, whole step', rounds: records.map((r) => r.seconds_train + r.seconds_between) },
    { name: '  of it the update', rounds: records.map((r) => r.seconds_train) },
    { name: '  of it rollouts, reward, HTTP, program', rounds: records.map((r) => r.seconds_between) },
  ]
  if (!alone) {
    // Our completions end when they end; the peer gets their mean length, rounded up.
    const fresh = Math.ceil(records.reduce((sum, r) => sum + r.completion_length_mean, 0) / records.length)
    const peer = await startPeer(['--new', String(fresh), '--micro-batch', '4'])
    const times: number[] = []
    for (let i = 0; i < rounds; i++) times.push((await peer.round('rollouts')) + (await peer.round('train-step')))
    rows.push({ name: 'transformers + peft, rollouts + training', rounds: times, note: `${fresh} new tokens each` })
    peer.close()
  }
  const tokens = records.map((r) => `${r.tokens}/${r.tokens_unshared}`).join(' ')
  print(`grpo-step: 8 x 4 on data/simple-qa, at most 64 new tokens; ${model}; tokens computed/unshared ${tokens}`, rows)
}

void main()
