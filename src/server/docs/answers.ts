// What the routes answer, as far as a schema is of use to a reader; tests hold the answers to them.

import { z } from 'zod'
import { JOB_STATUSES } from '../../protocol'

const unix = z.int().describe('Unix seconds.')

export const ErrorSchema = z.looseObject({
  error: z.strictObject({
    message: z.string().describe('What is wrong, with the value, and what to do.'),
    type: z.enum(['invalid_request_error', 'server_error']),
    param: z.string().nullable().describe('The field.'),
    code: z.string(),
  }),
  detail: z.unknown().describe("FastAPI's form of the same: a text, or an entry for each wrong field."),
})

export const UsageSchema = z.strictObject({
  prompt_tokens: z.int(),
  completion_tokens: z.int(),
  total_tokens: z.int(),
})

const token = z.strictObject({
  token: z.string(),
  logprob: z.number(),
  bytes: z.array(z.int()).nullable(),
})
const chatLogprobs = z.strictObject({
  content: z.array(token.extend({ top_logprobs: z.array(token) })),
  refusal: z.null(),
})
const finishReason = z.enum(['stop', 'length'])

export const ChatCompletionSchema = z.strictObject({
  id: z.string().describe('With "#" and the index of a choice: the completion_id of a step.'),
  object: z.literal('chat.completion'),
  created: unix,
  model: z.string(),
  choices: z.array(
    z.strictObject({
      index: z.int(),
      message: z.strictObject({ role: z.literal('assistant'), content: z.string() }),
      finish_reason: finishReason,
      logprobs: chatLogprobs.nullable(),
      completion_tokens: z.int().optional().describe('Where seeds were asked for.'),
    }),
  ),
  usage: UsageSchema,
})

export const ChatChunkSchema = z.strictObject({
  id: z.string(),
  object: z.literal('chat.completion.chunk'),
  created: unix,
  model: z.string(),
  choices: z.array(
    z.strictObject({
      index: z.int(),
      delta: z.strictObject({ role: z.literal('assistant').optional(), content: z.string().optional() }),
      finish_reason: finishReason.nullable(),
      logprobs: chatLogprobs.nullable(),
    }),
  ),
  usage: UsageSchema.nullable().optional().describe('Where it was asked for: null but in the last chunk.'),
})

export const CompletionSchema = z.strictObject({
  id: z.string(),
  object: z.literal('text_completion'),
  created: unix,
  model: z.string(),
  choices: z.array(
    z.strictObject({
      index: z.int().describe('Prompt by prompt, each with its n choices.'),
      text: z.string(),
      logprobs: z
        .strictObject({
          tokens: z.array(z.string()),
          token_logprobs: z.array(z.number().nullable()),
          top_logprobs: z.array(z.record(z.string(), z.number()).nullable()),
          text_offset: z.array(z.int()),
        })
        .nullable(),
      finish_reason: finishReason.nullable(),
    }),
  ),
  usage: UsageSchema.nullable().optional(),
})

export const ModelSchema = z.strictObject({ id: z.string(), object: z.literal('model'), created: unix, owned_by: z.string() })

export const FileSchema = z.strictObject({
  id: z.string(),
  object: z.literal('file'),
  bytes: z.int(),
  created_at: unix,
  filename: z.string(),
  purpose: z.string(),
  status: z.literal('processed'),
})

export const FineTuningJobSchema = z.looseObject({
  id: z.string(),
  object: z.literal('fine_tuning.job'),
  model: z.string(),
  created_at: unix,
  finished_at: unix.nullable(),
  status: z.enum(JOB_STATUSES),
  fine_tuned_model: z.string().nullable().describe('The name under which the trained model answers.'),
  error: z.looseObject({ code: z.string(), message: z.string() }).nullable(),
})

export const EventSchema = z.looseObject({
  object: z.literal('fine_tuning.job.event'),
  id: z.string(),
  created_at: unix,
  level: z.enum(['info', 'warn', 'error']),
  message: z.string(),
  type: z.enum(['message', 'metrics']),
})

export function listOf<Item extends z.ZodType>(item: Item) {
  return z.looseObject({ object: z.literal('list'), data: z.array(item) })
}
