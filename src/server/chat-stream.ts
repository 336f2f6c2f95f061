// A chat completion as OpenAI's stream of chunks. Logprobs come with a choice's last chunk.

import { type ChatPlan, chatUsage, choiceLogprobs } from './chat'
import { type ChunkSink, chunkStream } from './chunk-stream'
import { sampleChoices } from './sample'
import type { Services } from './services'
import type { CompletionText } from './stop-text'

/** First chunk of a choice: the role; then text; last: `finish_reason`; then usage if asked for; then `[DONE]`. */
export function streamChat(services: Services, plan: ChatPlan, options: { signal: AbortSignal; requestId: string }): Response {
  return chunkStream((sink) => writeChunks(services, plan, sink), options)
}

async function writeChunks(services: Services, plan: ChatPlan, { send, signal, reader }: ChunkSink): Promise<void> {
  const withUsage = plan.request.stream_options?.include_usage === true
  const head = { id: plan.id, object: 'chat.completion.chunk', created: plan.created, model: plan.request.model }
  const chunk = (choices: unknown[], usage: unknown = null) =>
    send(JSON.stringify({ ...head, choices, ...(withUsage ? { usage } : {}) }))
  const delta = (index: number, content: Record<string, unknown>) =>
    chunk([{ index, delta: content, finish_reason: null, logprobs: null }])

  const sent = plan.generate.seeds.map(() => 0)
  const sendText = (index: number, text: string) => {
    if (text.length > sent[index]!) delta(index, { content: text.slice(sent[index]!) })
    sent[index] = Math.max(sent[index]!, text.length)
  }
  for (const index of sent.keys()) delta(index, { role: 'assistant', content: '' })
  // For a slow reader the text waits in one piece, not in a chunk a token.
  const onText = (index: number, text: CompletionText) => {
    if (!reader.behind) sendText(index, text.safeText)
  }
  const choices = await sampleChoices(services, plan, { signal, onText })
  for (const choice of choices) {
    sendText(choice.index, choice.text.text)
    const logprobs = choiceLogprobs(services, plan, choice)
    chunk([{ index: choice.index, delta: {}, finish_reason: choice.finishReason, logprobs }])
  }
  if (withUsage) chunk([], chatUsage(plan, choices))
}
