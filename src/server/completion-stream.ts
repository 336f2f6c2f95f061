// Text completions as OpenAI's stream of chunks. Logprobs come with a choice's last chunk.

import { type ChunkSink, chunkStream } from './chunk-stream'
import { type CompletionPlan, completionBody, completionUsage, sampleCompletions } from './completions'
import type { Services } from './services'
import type { CompletionText } from './stop-text'

/** First the echo, if any; then text; then each choice's `finish_reason`; then usage if asked for; then `[DONE]`. */
export function streamCompletions(
  services: Services,
  plan: CompletionPlan,
  options: { signal: AbortSignal; requestId: string },
): Response {
  return chunkStream((sink) => writeChunks(services, plan, sink), options)
}

async function writeChunks(services: Services, plan: CompletionPlan, { send, signal, reader }: ChunkSink): Promise<void> {
  const withUsage = plan.request.stream_options?.include_usage === true
  const head = { id: plan.id, object: 'text_completion', created: plan.created, model: plan.request.model }
  const chunk = (choices: unknown[], usage: unknown = null) =>
    send(JSON.stringify({ ...head, choices, ...(withUsage ? { usage } : {}) }))
  const part = (index: number, text: string, last: object = { finish_reason: null, logprobs: null }) =>
    chunk([{ index, text, ...last }])
  const echoes = plan.prompts.flatMap(({ echo, generate }) => generate.seeds.map(() => echo))
  for (const [index, echo] of echoes.entries()) if (echo !== '') part(index, echo)
  const sent = echoes.map(() => 0)
  // For a slow reader the text waits in one piece, not in a chunk a token.
  const onText = (index: number, { safeText }: CompletionText) => {
    if (reader.behind || safeText.length <= sent[index]!) return
    part(index, safeText.slice(sent[index]!))
    sent[index] = safeText.length
  }
  const choices = await sampleCompletions(services, plan, { signal, onText })
  const body = (await completionBody(services, plan, choices)) as { choices: { finish_reason: string; logprobs: unknown }[] }
  for (const [i, { index, text }] of choices.entries()) {
    const { finish_reason, logprobs } = body.choices[i]!
    part(index, text.text.slice(sent[index]!), { finish_reason, logprobs })
  }
  if (withUsage) chunk([], completionUsage(plan, choices))
}
