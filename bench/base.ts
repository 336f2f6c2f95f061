// A base model's answers to data/simple-qa's test questions, before any training: how often they can be read, are right, and in which
// style they come. npm run bench -- base --model FOLDER [--json FILE]

import { writeFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { arbor, dspy } from '../src'
import { type Answers, askAll, HABITS, type Prompt, type Question, stylishDemos } from './_questions'
import { machine } from './_report'

interface Row {
  readonly name: string
  readonly prompt: Prompt
  readonly temperature: 0 | 1
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      model: { type: 'string', default: 'arbor-tiny' },
      device: { type: 'string', default: 'auto' },
      samples: { type: 'string', default: '4' },
      questions: { type: 'string', default: '0' }, // 0: all
      concurrency: { type: 'string', default: '32' },
      'max-tokens': { type: 'string', default: '96' },
      'no-demos': { type: 'boolean', default: false },
      json: { type: 'string' }, // rows for a model card
    },
  })
  const { testset } = await dspy.loadExamples('data/simple-qa', { inputs: ['question'] })
  const questions = testset.slice(0, Number(values.questions) || undefined) as unknown as Question[]
  const device = values.device as 'auto' | 'cpu' | 'cuda' | 'tfjs'
  const server = await arbor.startServer(values.model!, { device, onLog: (line) => process.stderr.write(`${line}\n`) })
  const lm = new dspy.LM(`openai/arbor:${values.model}`, { apiBase: server.baseUrl, maxTokens: Number(values['max-tokens']) })
  const rows: Record<string, string | number>[] = []
  for (const { name, prompt, temperature } of plan(!values['no-demos'])) {
    const samples = temperature === 0 ? 1 : Number(values.samples)
    const started = performance.now()
    const answers = await askAll(lm, prompt, questions, { temperature, samples, concurrency: Number(values.concurrency) })
    rows.push(tableRow(`${name}, ${temperature === 0 ? 'greedy' : `T=1, ${samples} each`}`, answers))
    process.stderr.write(`${name}, T=${temperature}: ${((performance.now() - started) / 1000).toFixed(1)} s\n`)
  }
  await server.close()
  process.stdout.write(`base: ${values.model}, ${questions.length} test questions\n${table(rows)}\n`)
  process.stdout.write(
    `${JSON.stringify({ title: 'base', model: values.model, questions: questions.length, ...machine(), rows })}\n`,
  )
  if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(rows, null, 2)}\n`)
}

/** Both programs without demonstrations, then the tutorial's with good and with bad ones. */
function plan(withDemos: boolean): Row[] {
  const thought = new dspy.ChainOfThought('question -> answer').signature as unknown as dspy.Signature
  const predict = new dspy.Predict('question -> answer').signature as unknown as dspy.Signature
  const prompts: [string, Prompt][] = [
    ['ChainOfThought', { signature: thought, demos: [] }],
    ['Predict', { signature: predict, demos: [] }],
  ]
  if (withDemos)
    for (const style of ['careful', 'hasty'] as const)
      for (const count of [1, 3])
        prompts.push([`${count} ${style} demos`, { signature: thought, demos: stylishDemos(style, count, thought) }])
  return prompts.flatMap(([name, prompt]) => ([0, 1] as const).map((temperature) => ({ name, prompt, temperature })))
}

function tableRow(name: string, answers: Answers): Record<string, string | number> {
  const { accuracy, exact, parse, pass, tokens, habits } = answers
  const round = (value: number) => Number(value.toFixed(3))
  return {
    program: name,
    accuracy: round(accuracy),
    exact: round(exact),
    parse: round(parse),
    'pass@n': round(pass),
    'tokens/answer': Number(tokens.toFixed(1)),
    ...Object.fromEntries(HABITS.map((habit) => [habit, habits ? round(habits[habit]) : '-'])),
  }
}

function table(rows: readonly Record<string, string | number>[]): string {
  const columns = Object.keys(rows[0]!)
  const widths = columns.map((column) => Math.max(column.length, ...rows.map((row) => String(row[column]).length)))
  const line = (cells: readonly string[]) =>
    cells.map((cell, i) => (i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!))).join('  ')
  return [line(columns), ...rows.map((row) => line(columns.map((column) => String(row[column]))))].join('\n')
}

void main()
