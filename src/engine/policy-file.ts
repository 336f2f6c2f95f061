// Opens and saves policies, whichever kind they are.

import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { ModelError, OptionError } from '../errors'
import type { LoraSpec, ModelSource, PolicySpec } from './engine'
import { FullWeights } from './full-weights'
import { loadFull, saveFull } from './full-weights-file'
import { LoraWeights } from './lora'
import { isAdapterFolder, loadLora, saveLora } from './lora-file'
import type { ModelConfig } from './model-config'
import { openModel } from './open-model'
import type { Backend } from './ops/ops'
import type { PolicyWeights } from './policy-weights'

/** The base a policy starts from. */
export interface PolicyBase {
  readonly backend: Backend
  readonly config: ModelConfig
  readonly source: ModelSource
}

/** A fresh policy, or the checkpoint's. Throws OptionError when the checkpoint is of another kind than asked for. */
export async function openWeights(
  base: PolicyBase,
  { lora, seed, checkpoint, freshOptimizer: fresh = false }: PolicySpec,
): Promise<PolicyWeights> {
  const { backend, config } = base
  if (checkpoint === undefined) return lora ? LoraWeights.fresh(backend, config, { spec: lora, seed }) : copyBase(base)
  const isAdapter = isAdapterFolder(checkpoint)
  if (lora === null && isAdapter)
    throw new OptionError(
      `${checkpoint}: the checkpoint is a LoRA adapter; asked for was a policy of all weights. Give its lora values.`,
    )
  if (lora === null) return loadFull(backend, config, checkpoint, { fresh })
  if (!isAdapter && existsSync(join(checkpoint, 'model.safetensors')))
    throw new OptionError(`${checkpoint}: the checkpoint holds all weights; asked for was a LoRA adapter (${adapterText(lora)}).`)
  const weights = loadLora(backend, config, checkpoint, { fresh })
  if (adapterText(weights.spec) === adapterText(lora)) return weights
  weights.close()
  throw new OptionError(
    `${checkpoint}: the checkpoint's adapter is ${adapterText(weights.spec)}; asked for was ${adapterText(lora)}. Use the checkpoint's values.`,
  )
}

/** What was saved, of whichever kind, to be asked only. Throws ModelError for a folder that holds neither. */
export function openFrozen({ backend, config }: PolicyBase, dir: string): PolicyWeights {
  if (isAdapterFolder(dir)) return loadLora(backend, config, dir, { frozen: true })
  if (existsSync(join(dir, 'model.safetensors'))) return loadFull(backend, config, dir, { frozen: true })
  throw new ModelError(`${dir}: neither an adapter (adapter_config.json) nor a model (model.safetensors) lies there.`)
}

export function saveWeights(weights: PolicyWeights, dir: string, { name, kind, path }: ModelSource): Promise<void> {
  if (weights instanceof LoraWeights) return saveLora(weights, dir, { baseModel: name })
  return saveFull(weights as FullWeights, dir, kind === 'folder' ? { baseFolder: path } : {})
}

/** The base's weights once more: those on the device may lie in a layout that only reads. */
async function copyBase({ backend, source }: PolicyBase): Promise<FullWeights> {
  const open = await openModel(source)
  try {
    return FullWeights.read(backend, open)
  } finally {
    open.weights.close()
  }
}

function adapterText({ rank, alpha, targets }: LoraSpec): string {
  return `r ${rank}, lora_alpha ${alpha}, target_modules ${[...targets].sort().join(' ')}`
}
