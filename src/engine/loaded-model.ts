// A model on its device with all that works on it: rollouts and training share its weights and divide the memory that these leave.

import type { ModelInfo, ModelSource } from './engine'
import { type InferenceWishes, planInference } from './inference-plan'
import { planActivations } from './memory-plan'
import type { MemoryFacts } from './memory-use'
import { Model } from './model'
import { ModelRunner } from './model-runner'
import type { Backend } from './ops/ops'
import type { PolicyWeights } from './policy-weights'
import { Scheduler } from './scheduler'
import { Trainer } from './trainer'
import type { OpenModel } from './weights'

export interface LoadedModel {
  readonly backend: Backend
  readonly model: Model
  readonly source: ModelSource
  readonly info: ModelInfo
  readonly runner: ModelRunner
  readonly scheduler: Scheduler
  readonly trainer: Trainer
}

export interface LoadOptions {
  readonly source: ModelSource
  /** `memory`: bytes that the whole process should stay within while it trains. */
  readonly wishes: InferenceWishes & { readonly memory?: number }
  readonly policies: (policy: string) => PolicyWeights
  /** Hears what is about to take memory before it does, so that an error can say where it went. */
  readonly onFacts: (facts: MemoryFacts) => void
}

/** Reads an open model's weights onto a device and takes what rollouts need; training takes its share when it begins. */
export function loadModel(backend: Backend, open: OpenModel, options: LoadOptions): LoadedModel {
  const { source, wishes, policies, onFacts } = options
  const { config } = open
  const { device, precision, activations } = backend
  onFacts({ config, backend })
  const model = Model.load(backend, open)
  const limits = planInference(config, { ...wishes, device, activations, memory: () => backend.memory() })
  onFacts({ config, backend, limits })
  const runner = new ModelRunner(backend, model, { limits, policies })
  const scheduler = new Scheduler(runner, limits)
  const info = describe(source.name, backend, model)
  const activationBytes = planActivations(config, { precision, memory: wishes.memory, device: backend.memory() })
  onFacts({ config, backend, limits, activationBytes })
  return { backend, model, source, info, runner, scheduler, trainer: new Trainer(backend, model, activationBytes) }
}

/** Frees what the model and all that works on it took; the device itself stays open. */
export function closeModel({ trainer, runner, model }: LoadedModel): void {
  trainer.close()
  runner.close()
  model.close()
}

function describe(name: string, backend: Backend, model: Model): ModelInfo {
  const { architecture, contextLength, vocab, layers, hidden, eosTokenIds } = model.config
  return {
    name,
    architecture,
    parameters: model.parameters,
    contextLength,
    vocab,
    layers,
    hidden,
    device: backend.device,
    deviceDescription: backend.description,
    dtype: backend.precision,
    eosTokenIds,
  }
}
