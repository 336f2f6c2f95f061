// Opens the job that ArborGRPO trains: on our server with all that it understands, on a real Arbor with what that takes.

import { OptionError, ProtocolError } from '../errors'
import type { LM } from '../program'
import { bareModelName, type InitializeRequest, type TrainKwargs } from '../protocol'
import { ArborJob, type GrpoJob } from './arbor-job'
import { forArbor } from './arbor-target'
import type { CheckpointFolder } from './checkpoint-folder'
import { ArborClusterJob } from './cluster-job'
import type { GrpoSettings } from './grpo-options'
import { agreeOnSampling, type PreparedKwargs, prepareTrainKwargs } from './train-kwargs'

interface Opening {
  readonly lm: LM & { readonly apiBase: string }
  readonly settings: GrpoSettings
  /** Of the program. */
  readonly predictors: number
  readonly folder: CheckpointFolder
  readonly resume?: string | true | undefined
  readonly signal?: AbortSignal | undefined
}

export interface OpenedJob {
  readonly job: GrpoJob
  /** What a person should know about the configuration. */
  readonly notes: readonly string[]
}

/** @throws OptionError for a configuration that the target doesn't take, ProtocolError where the server refuses */
export async function openJob(opening: Opening): Promise<OpenedJob> {
  const { lm, settings: s, predictors } = opening
  const given = { ...s.trainKwargs, ...agreeOnSampling(lm, s.trainKwargs).kwargs, ...weightsOf(s) }
  const run = {
    rollouts: s.numRolloutsPerGrpoStep,
    steps: s.numTrainSteps,
    groups: s.numDspyExamplesPerGrpoStep * predictors,
    seed: s.seed,
  }
  const prepared = prepareTrainKwargs(given, run)
  return s.target === 'arbor' ? openOnArbor(opening, prepared, run) : openOnOurs(opening, prepared)
}

async function openOnOurs(opening: Opening, { trainerConfig, notes }: PreparedKwargs): Promise<OpenedJob> {
  const { lm, folder, resume } = opening
  const model = bareModelName(lm.model)
  const request: InitializeRequest = {
    model,
    trainer_config: trainerConfig,
    inference_config: { model, max_seq_len: trainerConfig.max_seq_len },
    gpu_config: {
      type: 'multi',
      multi: { num_inference_gpus: trainerConfig.num_inference_gpus, num_training_gpus: trainerConfig.num_training_gpus },
    },
    ...(resume === undefined ? {} : { resume_from: resume === true ? await folder.jobId() : resume }),
  }
  try {
    return { job: await ArborJob.initialize(lm.apiBase, request), notes }
  } catch (error) {
    // What pydantic says to our extensions; our own server has other words.
    if (!(error instanceof ProtocolError) || !error.message.includes('extra_forbidden')) throw error
    throw new ProtocolError(`${lm.apiBase} is a real Arbor, it seems: give ArborGRPO target: 'arbor'. (${error.message})`, {
      status: error.status,
      cause: error,
    })
  }
}

async function openOnArbor(
  { lm, settings, resume, signal }: Opening,
  { trainerConfig, notes }: PreparedKwargs,
  run: { readonly steps: number; readonly groups: number },
): Promise<OpenedJob> {
  if (resume !== undefined) throw new OptionError("A real Arbor can't resume a run; compile without resume.")
  const target = forArbor(trainerConfig, settings.trainKwargs, run)
  const { trainKwargs } = target
  const { apiBase, model } = lm
  const job = await ArborClusterJob.open({ apiBase, model, trainKwargs, steps: run.steps, signal })
  return { job, notes: [...notes.filter((note) => !OUR_SERVERS.some((words) => note.includes(words))), ...target.notes] }
}

/** Notes on what our server does otherwise than Arbor. */
const OUR_SERVERS = ['lora_dropout', 'GPU split']

/** The weights in the order in which the samples' rewards are sent. */
function weightsOf({ rewardWeights }: GrpoSettings): TrainKwargs {
  return rewardWeights ? { reward_weights: Object.values(rewardWeights) } : {}
}
