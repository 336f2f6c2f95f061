// Cells in the order they were sent, one at a time. An error stops those that wait, unless their sender wants otherwise.

import type { ExecuteCommand, Outcome } from './bridge'
import type { History } from './history'
import type { Request } from './protocol'
import type { Header } from './wire'

export interface QueueHooks {
  run(command: ExecuteCommand): void
  begin(request: Request): void
  /** Replies and tells that the request is done. */
  finish(request: Request, content: Record<string, unknown>): void
  publish(type: string, content: unknown, parent: Header): void
  /** Resolves when all output has been sent; `cell` has ended. */
  flush(cell: string): Promise<void>
}

interface ExecuteContent {
  readonly code: string
  readonly silent: boolean
  readonly storeHistory: boolean
  readonly stopOnError: boolean
  readonly userExpressions: Readonly<Record<string, string>>
}

export class ExecutionQueue {
  private readonly waiting: Request[] = []
  private readonly requests = new Map<string, Request>()
  private current: { request: Request; content: ExecuteContent; cell: string } | null = null
  private count = 0
  private unnumbered = 0

  constructor(
    readonly history: History,
    private readonly hooks: QueueHooks,
  ) {}

  /** The header of the request that runs, or null. */
  get running(): Header | null {
    return this.current?.request.message.header ?? null
  }

  add(request: Request): void {
    this.waiting.push(request)
    this.next()
  }

  /** The request whose code `cell` is: output that comes late still belongs to it. */
  requestOf(cell: string): Request | null {
    return this.requests.get(cell) ?? this.current?.request ?? null
  }

  parentOf(cell: string): Header | null {
    return this.requestOf(cell)?.message.header ?? null
  }

  /** The running cell has ended. */
  async done(outcome: Outcome): Promise<void> {
    const { current } = this
    if (!current) return
    const { request, content } = current
    const { header } = request.message
    await this.hooks.flush(current.cell)
    const counted = { execution_count: this.count }
    if (outcome.status === 'error') {
      this.hooks.publish('error', outcome.error, header)
      this.remember(content, null)
      this.current = null
      this.hooks.finish(request, { status: 'error', ...outcome.error, ...counted, user_expressions: {}, payload: [] })
      if (content.stopOnError) this.abort()
    } else {
      const { bundle, expressions, page } = outcome
      if (bundle && !content.silent) this.hooks.publish('execute_result', { data: bundle, metadata: {}, ...counted }, header)
      this.remember(content, bundle ? String(bundle['text/plain'] ?? '') : null)
      this.current = null
      const payload = page ? [{ source: 'page', data: page, start: 0 }] : []
      this.hooks.finish(request, { status: 'ok', ...counted, user_expressions: expressions, payload })
    }
    this.next()
  }

  private next(): void {
    if (this.current) return
    const request = this.waiting.shift()
    if (!request) return
    const content = executeContent(request.message.content)
    const cell = this.nameOf(content)
    this.current = { request, content, cell }
    this.requests.set(cell, request)
    this.hooks.begin(request)
    const { code, silent, userExpressions } = content
    if (!silent) this.hooks.publish('execute_input', { code, execution_count: this.count }, request.message.header)
    this.hooks.run({ kind: 'execute', cell, code, silent, userExpressions })
  }

  /** Only what counts gets the number that people see. */
  private nameOf({ storeHistory }: ExecuteContent): string {
    return storeHistory ? `cell-${++this.count}.ts` : `cell-${this.count}-${++this.unnumbered}.ts`
  }

  private remember({ code, storeHistory }: ExecuteContent, output: string | null): void {
    if (storeHistory) this.history.add(this.count, code, output)
  }

  private abort(): void {
    for (const request of this.waiting.splice(0)) {
      this.hooks.begin(request)
      this.hooks.finish(request, { status: 'aborted' })
    }
  }
}

function executeContent(content: Readonly<Record<string, unknown>>): ExecuteContent {
  const silent = content.silent === true
  return {
    code: String(content.code ?? ''),
    silent,
    storeHistory: content.store_history !== false && !silent,
    stopOnError: content.stop_on_error !== false,
    userExpressions: (content.user_expressions ?? {}) as Record<string, string>,
  }
}
