// A policy as a plain model: the base's weights with an adapter folded in, or all of its own. Each weight is read, and made, when it is
// asked for, so a model need not fit into memory to be written.

import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { ModelError } from '../errors'
import type { ModelSource } from './engine'
import { ADAPTER, isAdapterFolder, readLoraSpec } from './lora-file'
import type { ModelConfig } from './model-config'
import { modelParts } from './model-weights'
import { openModel } from './open-model'
import { readSafetensors, readSafetensorsFolder, type SafetensorsFile } from './safetensors'
import type { OpenModel, WeightFile } from './weights'

/**
 * Opens what the policy saved in `dir` (an adapter, or all weights) computes with; null is the base itself. The weights' names are those
 * of the model and no others, in the order of its layers; a tied head is not among them. The caller closes `weights`.
 */
export async function openPolicyAsModel(base: ModelSource, dir: string | null): Promise<OpenModel> {
  const open = await openModel(base)
  try {
    if (dir === null) return { config: open.config, weights: modelOnly(open) }
    if (isAdapterFolder(dir)) return { config: open.config, weights: withAdapter(modelOnly(open), dir) }
    if (!existsSync(join(dir, 'model.safetensors')) && !existsSync(join(dir, 'model.safetensors.index.json')))
      throw new ModelError(`${dir}: neither an adapter (adapter_config.json) nor a model (model.safetensors) lies there.`)
    const own = { config: open.config, weights: readSafetensorsFolder(dir) }
    open.weights.close()
    return { config: open.config, weights: modelOnly(own) }
  } catch (error) {
    open.weights.close()
    throw error
  }
}

/** Names and shapes as the configuration asks for them: files may hold more (a tied head, tables of a rope). */
function modelOnly({ config, weights }: OpenModel): WeightFile {
  const shapes = modelShapes(config, weights)
  const shape = (name: string): readonly number[] => {
    const found = shapes.get(name)
    if (!found) throw new ModelError(`The model has no weight "${name}".`)
    return found
  }
  return {
    names: [...shapes.keys()],
    has: (name) => shapes.has(name),
    shape,
    read: (name) => {
      const expected = shape(name)
      if (!weights.has(name))
        throw new ModelError(`The model has no weight "${name}". Is this a Llama or Qwen2 model, and whole?`)
      if (String(weights.shape(name)) !== String(expected))
        throw new ModelError(`Weight "${name}" has shape [${weights.shape(name)}]; the model's config asks for [${expected}].`)
      return weights.read(name)
    },
    close: () => weights.close(),
  }
}

function modelShapes(config: ModelConfig, file: WeightFile): Map<string, readonly number[]> {
  const shapes = new Map<string, readonly number[]>()
  modelParts(config, file, ({ pieces, columns }) => {
    for (const [name, rows] of pieces) shapes.set(name, columns === null ? [rows] : [rows, columns])
  })
  return shapes
}

/** Reads W + scale · B A where the adapter has a part. */
function withAdapter(base: WeightFile, dir: string): WeightFile {
  const path = join(dir, ADAPTER)
  const { rank, alpha } = readLoraSpec(dir)
  const adapter = readSafetensors(path)
  const parts = new Set(adapter.names.map((name) => name.replace(/\.lora_[AB]\.weight$/, '')))
  const partOf = (name: string) => `base_model.model.${name.replace(/\.weight$/, '')}`
  const stray = [...parts].find((part) => !base.names.some((name) => name.endsWith('.weight') && partOf(name) === part))
  if (stray !== undefined) {
    adapter.close()
    throw new ModelError(`${path}: its "${stray}" belongs to no weight of this model. Is it another model's?`)
  }
  return {
    ...base,
    read: (name) => {
      const values = base.read(name)
      if (!name.endsWith('.weight') || !parts.has(partOf(name))) return values
      addProduct(values, { adapter, path, part: partOf(name), shape: base.shape(name), scale: alpha / rank })
      return values
    },
    close: () => {
      adapter.close()
      base.close()
    },
  }
}

interface AdapterPart {
  readonly adapter: SafetensorsFile
  readonly path: string
  readonly part: string
  readonly shape: readonly number[] // [out, in]
  readonly scale: number
}

/** values [out, in] += scale · B [out, rank] A [rank, in], each sum in f64 and rounded once. */
function addProduct(values: Float32Array, { adapter, path, part, shape, scale }: AdapterPart): void {
  const [nameA, nameB] = [`${part}.lora_A.weight`, `${part}.lora_B.weight`]
  const [out, columns] = shape as [number, number]
  const rank = adapter.shape(nameA)[0]!
  if (String(adapter.shape(nameA)) !== String([rank, columns]) || String(adapter.shape(nameB)) !== String([out, rank]))
    throw new ModelError(
      `${path}: "${part}" has the shapes [${adapter.shape(nameA)}] and [${adapter.shape(nameB)}]; the weight's is [${shape}]. Is it another model's?`,
    )
  const [a, b] = [adapter.read(nameA), adapter.read(nameB)]
  const sum = new Float64Array(columns)
  for (let row = 0; row < out; row++) {
    sum.fill(0)
    for (let r = 0; r < rank; r++) {
      const factor = scale * b[row * rank + r]!
      if (factor === 0) continue
      for (let column = 0, at = r * columns; column < columns; column++) sum[column]! += factor * a[at + column]!
    }
    for (let column = 0, at = row * columns; column < columns; column++) values[at + column]! += sum[column]!
  }
}
