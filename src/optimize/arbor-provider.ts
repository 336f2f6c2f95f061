// Marks an LM as one whose weights an Arbor server trains; the optimizers look for it.

import { OptionError } from '../errors'
import type { BaseLM, LM } from '../program'
import { bareModelName } from '../protocol'
import { failure, reach, withSlash } from './arbor-job'
import type { ReinforceProvider } from './dspy-session'
import { type FinetuneRequest, finetuneOnServer } from './finetune-job'
import { ArborReinforceJob } from './reinforce-job'

/** Whoever can fine-tune a language model. `LM.provider` holds one. */
export interface FinetuneProvider<Model = LM> {
  /** Lets go of the model before its training, where that frees something. */
  kill(lm: Model): Promise<void>
  /** The fine-tuned model. */
  finetune(lm: Model, request: FinetuneRequest): Promise<Model>
}

/** `new dspy.LM('openai/arbor:NAME', { provider: new arbor.ArborProvider(), apiBase })` */
export class ArborProvider implements FinetuneProvider, ReinforceProvider {
  readonly trainable = true

  /** @throws ProtocolError when the server doesn't answer */
  async kill(lm: LM): Promise<void> {
    const response = await reach(new URL('chat/kill', withSlash(apiBaseOf(lm))), { method: 'POST' }, 'start it again')
    if (!response.ok) throw await failure(response, 'chat/kill')
  }

  /** @throws ProtocolError when the server refuses the data or the training fails */
  async finetune(lm: LM, request: FinetuneRequest): Promise<LM> {
    const name = await finetuneOnServer(apiBaseOf(lm), bareModelName(lm.model), request)
    return lm.copy({ model: `openai/arbor:${name}` })
  }

  /** A GRPO job as arbor-ai's client opens one. @throws ProtocolError when the server refuses */
  async reinforce(lm: BaseLM, trainKwargs: Readonly<Record<string, unknown>>): Promise<ArborReinforceJob> {
    const job = new ArborReinforceJob(apiBaseOf(lm as LM), lm.model, trainKwargs)
    await job.initialize()
    return job
  }
}

function apiBaseOf({ model, apiBase }: LM): string {
  if (apiBase === undefined) throw new OptionError(`The LM ${model} has no apiBase: pass { apiBase: server.baseUrl }.`)
  return apiBase
}
