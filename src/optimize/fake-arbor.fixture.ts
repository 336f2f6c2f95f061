// An Arbor server in small, for tests of the client: it answers every chat with a text, trains nothing and remembers what it was sent.

import { createServer, type IncomingMessage } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { GroupInfo, Message, StepSample } from '../protocol'

const JOB = 'grpo:m:fake:1'

export interface ChatBody extends Record<string, unknown> {
  readonly messages: readonly Message[]
}

export interface FakeArbor {
  readonly baseUrl: string
  /** The body of initialize. */
  initialized: { trainer_config: Record<string, unknown>; [key: string]: unknown } | null
  /** Every completion asked for, as if it had been a request of its own. */
  readonly chats: ChatBody[]
  readonly steps: { batch: StepSample[][]; groups: GroupInfo[]; metrics: Record<string, number> }[]
  /** Names and metadata of the saved checkpoints, in order. */
  readonly saved: { name: string; metadata: Record<string, unknown> }[]
  /** Names that the job was asked to go back to. */
  readonly restored: string[]
  terminated: boolean
  close(): void
}

export async function fakeArbor(reply: (body: ChatBody, chat: number) => string): Promise<FakeArbor> {
  const checkpoints: Record<string, object> = {}
  const events: string[] = []
  const listeners: ((text: string) => void)[] = []
  const status = () => ({
    job_id: JOB,
    status: 'running',
    current_model: JOB,
    checkpoints,
    last_checkpoint: null,
    pending_batch_ids: [fake.steps.length],
  })
  const routes: Record<string, (body: never) => unknown> = {
    'chat/completions': ({ seeds, n: _, ...body }: ChatBody) => {
      const asked = ((seeds as number[] | undefined) ?? [body['seed']]).map((seed) => ({ ...body, seed }) as ChatBody)
      const choices = asked.map((one, index) => {
        const content = reply(one, fake.chats.push(one) - 1)
        return { index, finish_reason: 'stop', message: { role: 'assistant', content } }
      })
      return { id: `chat-${fake.chats.length}`, object: 'chat.completion', created: 0, model: JOB, choices }
    },
    'fine_tuning/grpo/initialize': (body: FakeArbor['initialized']) => {
      fake.initialized = body
      return status()
    },
    'fine_tuning/grpo/status': status,
    'fine_tuning/grpo/step': (body: FakeArbor['steps'][number]) => {
      const record = { step: fake.steps.push(body), job_id: JOB, validation_score: null }
      events.push(`data: ${JSON.stringify(record)}\n\n`)
      for (const tell of listeners) tell(events.at(-1)!)
      return status()
    },
    'fine_tuning/grpo/checkpoint': ({
      checkpoint_name: name,
      metadata,
    }: {
      checkpoint_name: string
      metadata: Record<string, unknown>
    }) => {
      fake.saved.push({ name, metadata })
      checkpoints[name] = { checkpoint_name: name, checkpoint_dir: `/nowhere/${name}`, global_step: fake.steps.length }
      return status()
    },
    'fine_tuning/grpo/restore': ({ checkpoint_name }: { checkpoint_name: string }) => {
      fake.restored.push(checkpoint_name)
      const best = fake.saved.reduce((one, other) =>
        Number(other.metadata['score']) > Number(one.metadata['score']) ? other : one,
      )
      checkpoints['restored'] = { metadata: { ...best.metadata, restored_from: best.name } }
      return { ...status(), last_checkpoint: 'restored' }
    },
    'fine_tuning/grpo/terminate': () => {
      fake.terminated = true
      return status()
    },
  }
  const server = createServer(async (request: IncomingMessage, response) => {
    const path = new URL(request.url!, 'http://localhost').pathname.replace('/v1/', '')
    if (path === 'fine_tuning/grpo/steps') {
      response.flushHeaders()
      for (const event of events) response.write(event)
      return void listeners.push((text) => response.write(text))
    }
    let text = ''
    for await (const chunk of request) text += String(chunk)
    response.setHeader('content-type', 'application/json')
    response.end(JSON.stringify(routes[path]!(JSON.parse(text) as never)))
  })
  await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening))
  const fake: FakeArbor = {
    baseUrl: `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1/`,
    initialized: null,
    chats: [],
    restored: [],
    steps: [],
    saved: [],
    terminated: false,
    close: () => {
      server.close()
      server.closeAllConnections()
    },
  }
  return fake
}
