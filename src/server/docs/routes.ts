// Every route, told once: what it does, what it takes, what it answers. A test holds this list to the app's own.

import { z } from 'zod'
import {
  ChatRequestSchema,
  CheckpointRequestSchema,
  CompletionRequestSchema,
  FineTuningRequestSchema,
  GRPOStatusSchema,
  HealthSchema,
  InitializeRequestSchema,
  JobDetailSchema,
  JobRequestSchema,
  JobSummarySchema,
  KillRequestSchema,
  LaunchRequestSchema,
  RestoreRequestSchema,
  RolloutGroupSchema,
  StepRecordSchema,
  StepRequestSchema,
} from '../../protocol'
import {
  ChatChunkSchema,
  ChatCompletionSchema,
  CompletionSchema,
  ErrorSchema,
  EventSchema,
  FileSchema,
  FineTuningJobSchema,
  listOf,
  ModelSchema,
} from './answers'

/** Schemas that have a name in the document. */
export const NAMED = {
  ChatRequest: ChatRequestSchema,
  ChatCompletion: ChatCompletionSchema,
  ChatChunk: ChatChunkSchema,
  CompletionRequest: CompletionRequestSchema,
  Completion: CompletionSchema,
  Model: ModelSchema,
  Models: listOf(ModelSchema),
  InitializeRequest: InitializeRequestSchema,
  JobRequest: JobRequestSchema,
  StepRequest: StepRequestSchema,
  CheckpointRequest: CheckpointRequestSchema,
  RestoreRequest: RestoreRequestSchema,
  GRPOStatus: GRPOStatusSchema,
  StepRecord: StepRecordSchema,
  LaunchRequest: LaunchRequestSchema,
  KillRequest: KillRequestSchema,
  File: FileSchema,
  Files: listOf(FileSchema),
  FineTuningRequest: FineTuningRequestSchema,
  FineTuningJob: FineTuningJobSchema,
  FineTuningJobs: listOf(FineTuningJobSchema),
  Events: listOf(EventSchema),
  Health: HealthSchema,
  Jobs: listOf(JobSummarySchema),
  Job: JobDetailSchema,
  RolloutGroups: listOf(RolloutGroupSchema),
  Error: ErrorSchema,
} as const
export type SchemaName = keyof typeof NAMED

export interface Route {
  readonly method: 'get' | 'post' | 'delete'
  /** With parameters in braces. */
  readonly path: string
  readonly tag: string
  readonly summary: string
  readonly takes?: SchemaName | 'upload'
  readonly query?: Readonly<Record<string, string>>
  /** Of status 200; 'object': described by the summary. */
  readonly gives: SchemaName | 'object' | 'text'
  /** Each event of a stream, where the answer may be one. */
  readonly streams?: SchemaName
  readonly example?: object
}

const message = { role: 'user', content: 'What is 2 + 3?' }
const page = { limit: 'how many at most', after: 'the id of the last one that is known' }
const OPENAI = 'Completions'
const GRPO = 'GRPO jobs'
const TUNING = 'Files and fine-tuning jobs'
const SERVER = 'The server'

const completions: readonly Route[] = [
  {
    method: 'post',
    path: '/chat/completions',
    tag: OPENAI,
    summary: 'Answers a conversation, whole or streamed.',
    takes: 'ChatRequest',
    gives: 'ChatCompletion',
    streams: 'ChatChunk',
    example: { model: 'arbor-tiny', messages: [message], max_tokens: 32 },
  },
  {
    method: 'post',
    path: '/completions',
    tag: OPENAI,
    summary: 'Goes on with texts, whole or streamed.',
    takes: 'CompletionRequest',
    gives: 'Completion',
    streams: 'Completion',
    example: { model: 'arbor-tiny', prompt: ['2 + 3 =', '4 + 4 ='], max_tokens: 4 },
  },
  {
    method: 'get',
    path: '/models',
    tag: OPENAI,
    summary: 'The base, jobs, checkpoints and adapters that answer.',
    gives: 'Models',
  },
  {
    method: 'get',
    path: '/models/{id}',
    tag: OPENAI,
    summary: 'One of them; the id may hold slashes and colons.',
    gives: 'Model',
  },
  {
    method: 'post',
    path: '/chat/launch',
    tag: OPENAI,
    summary: "Arbor's way to ask for a model; it is loaded with the server.",
    takes: 'LaunchRequest',
    gives: 'object',
    example: { model: 'arbor-tiny' },
  },
  {
    method: 'post',
    path: '/chat/kill',
    tag: OPENAI,
    summary: 'Nothing to do here: the model stays and is idle.',
    takes: 'KillRequest',
    gives: 'object',
  },
]

const grpo: readonly Route[] = [
  {
    method: 'post',
    path: '/fine_tuning/grpo/initialize',
    tag: GRPO,
    summary: 'Begins a job, or goes on with one (resume_from).',
    takes: 'InitializeRequest',
    gives: 'GRPOStatus',
    example: {
      model: 'arbor-tiny',
      trainer_config: { num_generations: 4, learning_rate: 3e-4, lora_config: { r: 8, lora_alpha: 16 } },
    },
  },
  {
    method: 'post',
    path: '/fine_tuning/grpo/status',
    tag: GRPO,
    summary: 'How a job is; 409 with the reason once it has failed or was cancelled.',
    takes: 'JobRequest',
    gives: 'GRPOStatus',
  },
  {
    method: 'post',
    path: '/fine_tuning/grpo/step',
    tag: GRPO,
    summary: 'Rewarded rollouts; answers at once, the update follows.',
    takes: 'StepRequest',
    gives: 'GRPOStatus',
  },
  {
    method: 'post',
    path: '/fine_tuning/grpo/checkpoint',
    tag: GRPO,
    summary: 'Saves the policy under a name.',
    takes: 'CheckpointRequest',
    gives: 'GRPOStatus',
  },
  {
    method: 'post',
    path: '/fine_tuning/grpo/restore',
    tag: GRPO,
    summary: "Makes the job's policy that of a checkpoint again.",
    takes: 'RestoreRequest',
    gives: 'GRPOStatus',
  },
  {
    method: 'post',
    path: '/fine_tuning/grpo/terminate',
    tag: GRPO,
    summary: 'Ends a job after the steps that were posted; its weights go on answering.',
    takes: 'JobRequest',
    gives: 'GRPOStatus',
  },
  {
    method: 'post',
    path: '/fine_tuning/grpo/cancel',
    tag: GRPO,
    summary: 'Ends a job at once.',
    takes: 'JobRequest',
    gives: 'GRPOStatus',
  },
  {
    method: 'get',
    path: '/fine_tuning/grpo/steps',
    tag: GRPO,
    summary: "A job's step records, as they are made.",
    query: { job_id: 'the job', after: 'the last step that is known; 0 for all', texts: '0 leaves the completions out' },
    gives: 'text',
    streams: 'StepRecord',
  },
]

const tuning: readonly Route[] = [
  {
    method: 'post',
    path: '/files',
    tag: TUNING,
    summary: 'Uploads lines of conversations (JSONL).',
    takes: 'upload',
    gives: 'File',
  },
  {
    method: 'get',
    path: '/files',
    tag: TUNING,
    summary: 'All files.',
    gives: 'Files',
    query: { purpose: 'only those of a purpose' },
  },
  { method: 'get', path: '/files/{id}', tag: TUNING, summary: 'One file.', gives: 'File' },
  { method: 'get', path: '/files/{id}/content', tag: TUNING, summary: 'Its lines.', gives: 'text' },
  { method: 'delete', path: '/files/{id}', tag: TUNING, summary: 'Removes it.', gives: 'object' },
  {
    method: 'post',
    path: '/fine_tuning/jobs',
    tag: TUNING,
    summary: 'Trains a model on a file.',
    takes: 'FineTuningRequest',
    gives: 'FineTuningJob',
    example: { model: 'arbor-tiny', training_file: 'file-…', hyperparameters: { n_epochs: 2 } },
  },
  {
    method: 'get',
    path: '/fine_tuning/jobs',
    tag: TUNING,
    summary: 'All jobs, those of GRPO too.',
    gives: 'FineTuningJobs',
    query: page,
  },
  { method: 'get', path: '/fine_tuning/jobs/{id}', tag: TUNING, summary: 'One job.', gives: 'FineTuningJob' },
  {
    method: 'get',
    path: '/fine_tuning/jobs/{id}/events',
    tag: TUNING,
    summary: 'What happened to it.',
    gives: 'Events',
    query: page,
  },
  {
    method: 'get',
    path: '/fine_tuning/jobs/{id}/checkpoints',
    tag: TUNING,
    summary: 'Its checkpoints.',
    gives: 'object',
    query: page,
  },
  { method: 'post', path: '/fine_tuning/jobs/{id}/cancel', tag: TUNING, summary: 'Ends it.', gives: 'FineTuningJob' },
]

const server: readonly Route[] = [
  { method: 'get', path: '/health', tag: SERVER, summary: 'How the server is: device, queue, work, memory.', gives: 'Health' },
  {
    method: 'get',
    path: '/jobs',
    tag: SERVER,
    summary: 'Training jobs of both kinds, as the page at / lists them.',
    gives: 'Jobs',
  },
  { method: 'get', path: '/jobs/{id}', tag: SERVER, summary: 'One, with its configuration.', gives: 'Job' },
  {
    method: 'get',
    path: '/jobs/{id}/rollouts',
    tag: SERVER,
    summary: 'The rollouts of a step.',
    gives: 'RolloutGroups',
    query: { step: 'which' },
  },
  {
    method: 'get',
    path: '/jobs/{id}/losses',
    tag: SERVER,
    summary: "A fine-tuning job's updates.",
    gives: 'object',
    query: { after: 'the last step that is known; 0 for all' },
  },
]

export const ROUTES: readonly Route[] = [...completions, ...grpo, ...tuning, ...server]

/** The named schemas as JSON Schema, as a client writes them; each refers to no other. */
export function jsonSchemas(): Record<SchemaName, Record<string, unknown>> {
  const entries = Object.entries(NAMED).map(([name, schema]) => {
    const { $schema: _, ...json } = z.toJSONSchema(schema, { io: 'input', unrepresentable: 'any' })
    return [name, json]
  })
  return Object.fromEntries(entries)
}
