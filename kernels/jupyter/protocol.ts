// The worker: Jupyter's protocol. It owns the sockets, answers what needs no cell, queues executions, and stays responsive whatever
// the main thread does. Started by main.ts with a WorkerSetup as workerData.

import { parentPort, workerData } from 'node:worker_threads'
import { type CommEvent, FLAG, type OutputEvent, type ToMain, type ToWorker, type WorkerSetup } from './bridge'
import { answerContent, kernelInfo } from './contents'
import { toUnits } from './cursor'
import { ExecutionQueue } from './execution-queue'
import { History, type HistoryRequest } from './history'
import { Interrupter } from './interrupter'
import { OutputQueue } from './output'
import { type Channel, Sockets } from './sockets'
import { type Envelope, type Header, type Message, Wire } from './wire'

/** What one request needs to be answered. */
export interface Request {
  readonly channel: Channel
  readonly message: Message
}

const EXIT_MS = 1000

class Protocol {
  private readonly flags: Int32Array
  private readonly wire: Wire
  private readonly sockets: Sockets
  private readonly interrupter: Interrupter
  private readonly output: OutputQueue
  private readonly executions: ExecutionQueue
  /** Targets of the open comms. */
  private readonly comms = new Map<string, string>()
  private readonly questions = new Map<number, (answer: Extract<ToWorker, { kind: 'answer' }>['answer']) => void>()
  /** Questions of `prompt()` not yet answered, by the id of the message that asked. */
  private readonly prompts = new Map<string, number>()
  private questionCount = 0
  private lastBusy: Partial<Header> | null = null

  constructor(private readonly setup: WorkerSetup) {
    const { connection } = setup
    this.flags = new Int32Array(setup.flags)
    this.wire = new Wire(connection.key, connection.signature_scheme)
    this.sockets = new Sockets(connection)
    this.interrupter = new Interrupter(this.flags, toMain)
    const sent = (units: number) => {
      Atomics.sub(this.flags, FLAG.pending, units)
      Atomics.notify(this.flags, FLAG.pending)
    }
    this.output = new OutputQueue((event) => this.show(event), sent)
    this.executions = new ExecutionQueue(new History(setup.historyFile), {
      run: toMain,
      begin: (request) => this.begin(request),
      finish: (request, content) => this.finish(request, content),
      publish: (type, content, parent) => this.publish(type, content, { parent }),
      flush: (cell) => {
        this.output.unlimit(cell)
        return this.output.flush()
      },
    })
  }

  async start(): Promise<void> {
    await this.sockets.bind({
      onMessage: (channel, frames) => {
        const message = this.wire.decode(frames)
        if (message) void this.handle({ channel, message })
      },
      onSubscribe: (topic) => {
        const { frames } = this.wire.encode(
          'iopub_welcome',
          { subscription: Buffer.from(topic).toString() },
          { identities: [topic] },
        )
        void this.sockets.publish(frames)
      },
    })
    // No status `starting`: a subscriber's first message has to be its welcome.
  }

  /** What the main thread says. */
  receive(event: ToWorker): void {
    if (event.kind === 'stream') {
      // Whoever waits for this looks every 20 ms: a wake-up for each line would cost more.
      Atomics.sub(this.flags, FLAG.unread, 1)
      this.output.add(event)
    } else if (event.kind === 'display' || event.kind === 'clear') this.output.add(event)
    else if (event.kind === 'done') void this.executions.done(event.outcome)
    else if (event.kind === 'answer') this.questions.get(event.id)?.(event.answer)
    else if (event.kind === 'acknowledge') this.interrupter.acknowledge(event.id)
    else if (event.kind === 'signal') void this.interrupt()
    else if (event.kind === 'input') this.askPerson(event)
    else this.sendComm(event)
  }

  private async handle(request: Request): Promise<void> {
    const { header, content } = request.message
    const type = header.msg_type
    if (type === 'execute_request') return this.executions.add(request)
    if (type === 'input_reply') return this.answerPerson(request.message)
    this.begin(request)
    if (type === 'kernel_info_request') this.finish(request, kernelInfo(this.setup.banner))
    else if (type === 'history_request')
      this.finish(request, { status: 'ok', history: this.executions.history.rows(content as HistoryRequest) })
    else if (type === 'comm_info_request') this.finish(request, this.commInfo(content.target_name))
    else if (type === 'complete_request') await this.ask(request, 'complete')
    else if (type === 'inspect_request') await this.ask(request, 'inspect')
    else if (type === 'is_complete_request') await this.ask(request, 'isComplete')
    else if (type === 'interrupt_request') {
      void this.interrupt()
      this.finish(request, { status: 'ok' })
    } else if (type === 'shutdown_request') return this.shutDown(request)
    else {
      if (type.startsWith('comm_')) this.receiveComm(request.message)
      this.finish(request, null) // an unknown request has no reply
    }
  }

  private begin({ message }: Request): void {
    this.publish('status', { execution_state: 'busy' }, { parent: message.header })
    this.lastBusy = message.header
  }

  /** Replies and tells that the request is done; `content` null: it has no reply. */
  private finish({ channel, message }: Request, content: Record<string, unknown> | null): void {
    const { header, identities } = message
    if (content) {
      const type = header.msg_type.replace(/_request$/, '_reply')
      void this.sockets.send(channel, this.wire.encode(type, content, { identities, parent: header }).frames)
    }
    this.publish('status', { execution_state: 'idle' }, { parent: header })
    // What was answered beside a running cell must not make the kernel look idle.
    const running = this.executions.running
    if (running && running !== header) this.publish('status', { execution_state: 'busy' }, { parent: running })
  }

  private publish(type: string, content: unknown, envelope: Envelope): Header {
    const { header, frames } = this.wire.encode(type, content, { identities: [Buffer.from(type)], ...envelope })
    void this.sockets.publish(frames)
    return header
  }

  private show(event: OutputEvent): void {
    const parent = this.executions.parentOf(event.cell) ?? this.lastBusy ?? {}
    if (event.kind === 'stream') this.publish('stream', { name: event.name, text: event.text }, { parent })
    else if (event.kind === 'clear') this.publish('clear_output', { wait: event.wait }, { parent })
    else {
      const transient = event.displayId === null ? {} : { display_id: event.displayId }
      const type = event.update ? 'update_display_data' : 'display_data'
      this.publish(type, { data: event.bundle, metadata: {}, transient }, { parent })
    }
  }

  private async ask(request: Request, what: 'complete' | 'inspect' | 'isComplete'): Promise<void> {
    const { code, cursor_pos } = request.message.content as { code?: string; cursor_pos?: number }
    const text = String(code ?? '')
    const offset = typeof cursor_pos === 'number' ? toUnits(text, cursor_pos) : text.length
    const id = ++this.questionCount
    toMain({ kind: 'ask', id, what, code: text, offset })
    const answer = await new Promise<Parameters<typeof answerContent>[0]>((resolve) => this.questions.set(id, resolve))
    this.questions.delete(id)
    this.finish(request, answerContent(answer, text))
  }

  private async interrupt(): Promise<void> {
    if (this.executions.running) this.output.limit()
    if (await this.interrupter.interrupt()) return
    const text = 'The running code does not react to an interrupt (native code?). Restart the kernel to stop it.\n'
    this.publish('stream', { name: 'stderr', text }, { parent: this.executions.running ?? {} })
  }

  private commInfo(target: unknown): Record<string, unknown> {
    const wanted = [...this.comms].filter(([, name]) => target === undefined || target === null || name === target)
    return { status: 'ok', comms: Object.fromEntries(wanted.map(([id, target_name]) => [id, { target_name }])) }
  }

  private receiveComm({ header, content, metadata, buffers }: Message): void {
    const type = header.msg_type as CommEvent['type']
    this.follow(type, content as unknown as CommEvent['content'])
    toMain({ kind: 'comm', cell: null, type, content: content as unknown as CommEvent['content'], metadata, buffers })
  }

  private sendComm({ cell, type, content, metadata, buffers }: CommEvent): void {
    this.follow(type, content)
    const parent = (cell === null ? null : this.executions.parentOf(cell)) ?? this.lastBusy ?? {}
    this.publish(type, content, { parent, metadata, buffers })
  }

  private follow(type: CommEvent['type'], { comm_id, target_name }: CommEvent['content']): void {
    if (type === 'comm_open') this.comms.set(comm_id, String(target_name))
    if (type === 'comm_close') this.comms.delete(comm_id)
  }

  private askPerson({ cell, id, prompt, password }: Extract<ToWorker, { kind: 'input' }>): void {
    const asker = this.executions.requestOf(cell)
    if (!asker || asker.message.content.allow_stdin === false) {
      toMain({ kind: 'input', id, value: null })
      return
    }
    const { identities, header: parent } = asker.message
    const { header, frames } = this.wire.encode('input_request', { prompt, password }, { identities, parent })
    this.prompts.set(header.msg_id, id)
    void this.sockets.send('stdin', frames)
  }

  /** Clients may leave out which question they answer: then it is the latest. */
  private answerPerson({ parent, content }: Message): void {
    const asked = this.prompts.has(parent.msg_id ?? '') ? parent.msg_id! : [...this.prompts.keys()].at(-1)
    if (asked === undefined) return
    toMain({ kind: 'input', id: this.prompts.get(asked)!, value: String(content.value ?? '') })
    this.prompts.delete(asked)
  }

  private async shutDown(request: Request): Promise<void> {
    const content = { status: 'ok', restart: request.message.content.restart === true }
    this.publish('shutdown_reply', content, { parent: request.message.header })
    this.finish(request, content)
    await this.sockets.close()
    await exitProcess(this.interrupter)
  }
}

/** Lets the main thread end by itself, then stops what it runs, then all. */
export async function exitProcess(interrupter: Pick<Interrupter, 'terminate' | 'close'>): Promise<void> {
  interrupter.close()
  toMain({ kind: 'exit' })
  setTimeout(() => process.kill(process.pid, 'SIGKILL'), 2 * EXIT_MS)
  await new Promise((resolve) => setTimeout(resolve, EXIT_MS / 2))
  interrupter.terminate()
  interrupter.close()
  toMain({ kind: 'exit' })
}

function toMain(message: ToMain): void {
  parentPort!.postMessage(message)
}

/** The kernel ends with the program that started it, as Jupyter asks by this variable. */
function followParent(): void {
  if (process.env.JPY_PARENT_PID === undefined) return
  const parent = process.ppid
  setInterval(() => process.ppid !== parent && process.kill(process.pid, 'SIGKILL'), 1000).unref()
}

const protocol = new Protocol(workerData as WorkerSetup)
parentPort!.on('message', (event: ToWorker) => protocol.receive(event))
followParent()
void protocol.start()
