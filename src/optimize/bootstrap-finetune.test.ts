import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { describe, expect, it } from 'vitest'
import { AdapterParseError } from '../errors'
import { ChainOfThought, ChatAdapter, context, DummyLM, Example, LM, Module, Predict, setProgressObserver } from '../program'
import type { FineTuningEvent } from '../protocol'
import { ArborProvider } from './arbor-provider'
import { BootstrapFinetune } from './bootstrap-finetune'
import type { FinetuneRequest } from './finetune-job'

const STEP = { step: 1, steps: 1, epoch: 1, loss: 2.5, learning_rate: 1e-4, grad_norm: 1, tokens: 9, seconds: 0.1 }
const EVENT: FineTuningEvent = {
  object: 'fine_tuning.job.event',
  id: 'e1',
  created_at: 0,
  level: 'info',
  message: 'Update 1/1: loss 2.5000',
  type: 'metrics',
  data: { ...STEP, source: 'training_log' },
}

/** Answers every question with its own length; its provider keeps what it is asked to train. */
class TunableLM extends DummyLM {
  readonly requests: FinetuneRequest[] = []
  readonly provider = {
    kill: async () => {},
    finetune: async (_: unknown, request: FinetuneRequest) => {
      this.requests.push(request)
      request.onEvent?.(EVENT)
      return new DummyLM([])
    },
  }
}

const examples = ['a', 'bb', 'ccc'].map((question) =>
  new Example({ question, answer: String(question.length) }).withInputs('question'),
)
const answers = ['1', '9', '3'].map((answer) => ({ answer }))
const exact = (example: Record<string, unknown>, prediction: Record<string, unknown>) =>
  example['answer'] === prediction['answer']
const last = ({ trainData }: FinetuneRequest) => trainData.map(({ messages }) => messages.at(-1)!.content)

describe('BootstrapFinetune', () => {
  it('trains on the runs that the metric liked, and leaves the student as it is', async () => {
    const lm = new TunableLM(answers)
    const student = new Predict('question -> answer')
    student.setLm(lm)
    const optimizer = new BootstrapFinetune({ metric: exact, numThreads: 1, trainKwargs: { num_train_epochs: 2 } })
    const tuned = await optimizer.compile(student, { trainset: examples })
    const [request] = lm.requests
    expect(
      last(request!)
        .map((text) => text.match(/\d/)![0])
        .sort(),
    ).toEqual(['1', '3'])
    expect(request!.trainKwargs).toEqual({ num_train_epochs: 2 })
    expect(student.lm).toBe(lm)
    expect(tuned.lm).not.toBe(lm)
    expect([student.compiled, tuned.compiled]).toEqual([false, true])
    expect(optimizer.runs).toMatchObject([{ predictors: ['self'], rows: 2, steps: [STEP] }])
  })

  it('keeps predictors with equal signatures apart', async () => {
    class Twice extends Module {
      first = new Predict('question -> answer')
      second = new Predict('question -> answer')
      async forward({ question }: { question: string }) {
        const { answer } = await this.first.call({ question })
        return this.second.call({ question: String(answer) })
      }
    }
    const lm = new TunableLM([{ answer: 'one' }, { answer: 'two' }])
    const student = new Twice()
    student.setLm(lm)
    const tuned = await new BootstrapFinetune({ multitask: false, numThreads: 1 }).compile(student, {
      trainset: examples.slice(0, 1),
    })
    expect(lm.requests.map((request) => last(request).join())).toEqual([
      expect.stringContaining('one'),
      expect.stringContaining('two'),
    ])
    expect(tuned.first.lm).not.toBe(tuned.second.lm)
  })

  it('leaves out runs that fail, and says how many; fails with the first error when all do', async () => {
    const lm = new TunableLM([{ answer: '1' }, 'no field at all', { answer: '3' }])
    const student = new Predict('question -> answer')
    student.setLm(lm)
    const optimizer = new BootstrapFinetune({ numThreads: 1 })
    const run = (trainset: Example[]) => context({ adapterFallback: false }, () => optimizer.compile(student, { trainset }))
    await run(examples)
    expect(lm.requests[0]!.trainData).toHaveLength(2)
    expect(optimizer.notes[0]).toContain('1 of 3 runs failed')
    student.setLm(new TunableLM(['no field at all']))
    await expect(run(examples.slice(0, 1))).rejects.toThrow(AdapterParseError)
  })

  it('takes demonstrations along, unless they are excluded', async () => {
    for (const excludeDemos of [false, true]) {
      const lm = new TunableLM([{ answer: '1' }])
      const student = new Predict('question -> answer')
      student.setLm(lm)
      student.demos = [new Example({ question: 'demo', answer: '4' })]
      const tuned = await new BootstrapFinetune({ excludeDemos }).compile(student, { trainset: examples.slice(0, 1) })
      expect(lm.requests[0]!.trainData[0]!.messages).toHaveLength(excludeDemos ? 3 : 5)
      expect(tuned.demos).toHaveLength(excludeDemos ? 0 : 1)
    }
  })

  it('learns from a teacher, who must be the same program', async () => {
    const lm = new TunableLM([])
    const student = new ChainOfThought('question -> answer')
    student.setLm(lm)
    const teacher = student.deepcopy()
    teacher.setLm(new DummyLM([{ reasoning: 'I count.', answer: '1' }]))
    await new BootstrapFinetune().compile(student, { trainset: examples.slice(0, 1), teacher })
    expect(last(lm.requests[0]!)[0]).toContain('I count.')
    const other = new Predict('question -> answer')
    await expect(new BootstrapFinetune().compile(student, { trainset: examples, teacher: other as never })).rejects.toThrow(
      'must be the same program',
    )
  })

  it('says what is missing', async () => {
    const compile = (student: Module, trainset = examples) =>
      new BootstrapFinetune({ metric: () => false }).compile(student, { trainset })
    const program = new Predict('question -> answer')
    await expect(compile(program)).rejects.toThrow('has no LM')
    program.setLm(new DummyLM([]))
    await expect(compile(program)).rejects.toThrow("can't be fine-tuned")
    program.setLm(new TunableLM(answers))
    await expect(compile(program)).rejects.toThrow('None of 3 runs was worth learning from')
    await expect(compile(program, [])).rejects.toThrow('The trainset is empty')
  })

  it('reports its updates to the progress observer', async () => {
    const seen: string[] = []
    const before = setProgressObserver(({ kind, note }) => seen.push(`${kind} ${note}`))
    try {
      const student = new Predict('question -> answer')
      student.setLm(new TunableLM(answers))
      await new BootstrapFinetune({ numThreads: 1 }).compile(student, { trainset: examples })
    } finally {
      setProgressObserver(before)
    }
    expect(seen.filter((line) => line.startsWith('finetune'))).toEqual([
      'finetune:start ',
      'finetune:item loss 2.5000',
      'finetune:end loss 2.5000',
    ])
  })
})

describe('a fine-tuning job on a server', () => {
  it('is cancelled there when its cell is interrupted', async () => {
    const asked: string[] = []
    const stop = new AbortController()
    const server = createServer((request, response) => {
      asked.push(`${request.method} ${request.url!.replace('/v1/', '')}`)
      if (asked.length === 5) stop.abort(new Error('interrupted'))
      const job = { id: 'ftjob:x', object: 'fine_tuning.job', finished_at: null, data: [] }
      request.resume().on('end', () => response.setHeader('content-type', 'application/json').end(JSON.stringify(job)))
    })
    await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening))
    const apiBase = `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1/`
    const lm = new LM('openai/arbor:m', { provider: new ArborProvider(), apiBase })
    const teacher = new Predict('question -> answer')
    teacher.setLm(new DummyLM(answers))
    const student = new Predict('question -> answer')
    student.setLm(lm)
    const compile = () => new BootstrapFinetune().compile(student, { trainset: examples, teacher, signal: stop.signal })
    await expect(context({ adapter: new ChatAdapter() }, compile)).rejects.toThrow('interrupted')
    server.close()
    expect(asked.slice(0, 4)).toEqual(['POST chat/kill', 'POST files', 'POST fine_tuning/jobs', 'GET fine_tuning/jobs/ftjob:x'])
    expect(asked.at(-1)).toBe('POST fine_tuning/jobs/ftjob:x/cancel')
  })
})
