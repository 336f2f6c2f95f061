// The main thread's half of the kernel: runs what the worker asks for and tells it what happens. Everything that a cell's own code could
// stop (a loop, an interrupt in the middle) is arranged so that the next message of the worker puts it right.

import { prepareTermination, recoverFromTermination, tolerateTermination } from './async-checks'
import type { CommEvent, ExecuteCommand, Outcome, Question, ToMain, ToWorker } from './bridge'
import { FLAG } from './bridge'
import { colourTraceback } from './colour'
import { createExecutor, type Executor, Interrupted } from './executor'
import { cutText, type MimeBundle } from './mime'
import type { CellError } from './positions'

/** UTF-16 units of output that may wait for the worker; a loop that prints more is made to wait. */
const MOST_PENDING = 2_000_000
const MOST_UNREAD = 2000
const LONGEST_PRINT = 1_000_000
/** `name?` shows what a name is, as in IPython. */
const QUESTION = /^\s*([\w$.]+)\?\s*$/

interface RunningCell {
  readonly end: (outcome: Outcome) => void
  started: boolean
}

export class KernelRuntime {
  private readonly executor: Executor
  private running: RunningCell | null = null
  private handledInterrupts = 0
  private readonly prompts = new Map<number, (value: string | null) => void>()
  private promptCount = 0

  constructor(
    private readonly flags: Int32Array,
    private readonly post: (message: ToWorker) => void,
  ) {
    prepareTermination()
    this.executor = createExecutor({
      cwd: process.cwd(),
      breakOnSigint: false,
      guard: (work) => this.guard(work),
      onHeed: () => Atomics.store(flags, FLAG.heeds, 1),
      onStream: ({ cell, name, text }) => this.print(cell, name, text),
      onDisplay: (event) => post({ kind: 'display', ...event }),
      onClear: (event) => post({ kind: 'clear', ...event }),
      onPrompt: (event) => this.ask(event),
      onComm: ({ cell, type, content, options: { metadata = {}, buffers = [] } }) =>
        post({ kind: 'comm', cell, type, content, metadata, buffers }),
    })
  }

  /** Builds the compiler, ahead of the first cell. */
  prepare(): void {
    this.executor.prepare()
  }

  receive(message: ToMain): void {
    tolerateTermination()
    // Still set: an interrupt cut the compiler short, and what it holds may be half done.
    if (this.flags[FLAG.compiling] === 1) this.rebuildCompiler()
    if (message.kind === 'execute') this.execute(message)
    else if (message.kind === 'ask') this.answer(message)
    else if (message.kind === 'comm') this.receiveComm(message)
    else if (message.kind === 'input') this.answerPrompt(message.id, message.value)
    else if (message.kind === 'interrupt') this.interrupt(message.id)
    else process.exit(0)
  }

  /** An error that nobody caught shows under the cell that it comes from. */
  stray(error: unknown): void {
    const { traceback } = this.executor.describe(error)
    this.post({ kind: 'stream', cell: this.executor.current(), name: 'stderr', text: `Not caught: ${traceback.join('\n')}\n` })
  }

  private execute(command: ExecuteCommand): void {
    const running: RunningCell = { started: false, end: () => undefined }
    const ended = new Promise<Outcome>((resolve) => Object.assign(running, { end: resolve }))
    this.running = running
    void ended.then((outcome) => {
      this.running = null
      Atomics.store(this.flags, FLAG.heeds, 0)
      this.post({ kind: 'done', cell: command.cell, outcome })
    })
    // In a turn of its own: when the cell is terminated, this function has returned.
    setImmediate(() => {
      if (this.running !== running) return
      running.started = true
      void this.outcome(command).then(running.end)
    })
  }

  private async outcome({ code, cell, silent, userExpressions }: ExecuteCommand): Promise<Outcome> {
    try {
      const question = QUESTION.exec(code)
      if (question) return this.page(question[1]!)
      const result = await this.executor.execute(code, { cellName: cell })
      if (result.status === 'error') return failed(result)
      const bundle = result.value === undefined || silent ? null : await this.executor.show(result.value)
      return { status: 'ok', bundle, expressions: await this.evaluate(userExpressions) }
    } catch (error) {
      return failed(this.executor.describe(error))
    }
  }

  private async evaluate(expressions: Readonly<Record<string, string>>): Promise<Record<string, unknown>> {
    const values: Record<string, unknown> = {}
    for (const [name, code] of Object.entries(expressions)) {
      const result = await this.executor.execute(code, { cellName: `expression-${name}.ts` })
      values[name] =
        result.status === 'ok'
          ? { status: 'ok', data: await this.executor.show(result.value), metadata: {} }
          : { status: 'error', ename: result.ename, evalue: result.evalue, traceback: result.traceback }
    }
    return values
  }

  private page(name: string): Outcome {
    const answer = this.executor.ask({ what: 'inspect', code: name, offset: name.length })
    const found = answer.what === 'inspect' ? answer.found : null
    const text = found ? `${found.signature}\n\n${found.documentation}`.trimEnd() : `${name} is not known here`
    return { status: 'ok', bundle: null, expressions: {}, page: { 'text/plain': text } satisfies MimeBundle }
  }

  private answer({ id, what, code, offset }: Question): void {
    this.post({ kind: 'answer', id, answer: this.executor.ask({ what, code, offset }) })
  }

  private receiveComm({ type, content, buffers }: CommEvent): void {
    try {
      this.executor.receiveComm(type, content, buffers)
    } catch (error) {
      this.stray(error)
    }
  }

  private interrupt(id: number): void {
    this.post({ kind: 'acknowledge', id })
    recoverFromTermination()
    this.passInterrupts()
    for (const id of this.prompts.keys()) this.answerPrompt(id, null)
    const { running } = this
    if (running?.started) setTimeout(() => this.endTerminated(running), 20)
    else if (running) this.endTerminated(running)
  }

  /** A cell that was terminated in its first, plain part can't tell its end; one that waits tells it by itself. */
  private endTerminated(running: RunningCell): void {
    if (this.running !== running || (running.started && this.executor.waits())) return
    running.end(failed(this.executor.describe(new Interrupted('The cell was interrupted'))))
  }

  private guard<T>(work: () => T): T {
    Atomics.store(this.flags, FLAG.compiling, 1)
    try {
      return work()
    } finally {
      Atomics.store(this.flags, FLAG.compiling, 0)
      this.passInterrupts()
    }
  }

  /** Each interrupt once: its message is repeated until it is acknowledged, and two may have come while the thread was busy. */
  private passInterrupts(): void {
    const asked = Atomics.load(this.flags, FLAG.interrupts)
    while (this.handledInterrupts < asked) {
      this.handledInterrupts++
      this.executor.interrupt()
    }
  }

  private rebuildCompiler(): void {
    Atomics.store(this.flags, FLAG.compiling, 0)
    this.executor.prepare(true)
  }

  private print(cell: string, name: 'stdout' | 'stderr', text: string): void {
    const short = cutText(text, LONGEST_PRINT)
    Atomics.add(this.flags, FLAG.pending, short.length)
    Atomics.add(this.flags, FLAG.unread, 1)
    this.post({ kind: 'stream', cell, name, text: short })
    this.waitForWorker(FLAG.unread, MOST_UNREAD)
    this.waitForWorker(FLAG.pending, MOST_PENDING)
  }

  private waitForWorker(flag: number, most: number): void {
    for (let count = Atomics.load(this.flags, flag); count > most; count = Atomics.load(this.flags, flag))
      Atomics.wait(this.flags, flag, count, 20)
  }

  private ask({ cell, question, password }: { cell: string; question: string; password: boolean }): Promise<string> {
    const id = ++this.promptCount
    this.post({ kind: 'input', cell, id, prompt: question, password })
    return new Promise((resolve, reject) => {
      const refused = new Error(`prompt(${JSON.stringify(question)}): this client takes no answers`)
      this.prompts.set(id, (value) => (value === null ? reject(refused) : resolve(value)))
    })
  }

  private answerPrompt(id: number, value: string | null): void {
    const resolve = this.prompts.get(id)
    this.prompts.delete(id)
    resolve?.(value)
  }
}

function failed({ ename, evalue, traceback }: CellError): Outcome {
  return { status: 'error', error: { ename, evalue, traceback: colourTraceback(traceback) } }
}
