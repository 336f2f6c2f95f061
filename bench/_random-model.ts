// Models with random weights: made as they are read for an engine of this process, or as a folder of files for a server.
// Speed does not depend on the values, so a million of them, laid out anew again and again, serve all matrices: 7B are there in seconds.

import { closeSync, cpSync, mkdirSync, openSync, readFileSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { float32ToBf16 } from '../src/engine/file-reader'
import { type ModelConfig, modelConfig } from '../src/engine/model-config'
import { modelParts } from '../src/engine/model-weights'
import { packageRoot } from '../src/engine/package-root'
import { normals, uniforms } from '../src/engine/random'
import type { OpenModel } from '../src/engine/weights'

/** Hugging Face's initializer_range: the peer's weights are drawn alike. */
const DEVIATION = 0.02
const DRAWN = 1 << 20
/** A prime, so that hardly a row of a matrix is a row of another. */
const PIECE = 4093
/** Overlapping tensors of a file begin this far apart, a prime: their rows never coincide. */
const STRIDE = 7919
/** Values written at once. */
const WRITTEN = 1 << 25

/** Weights of the shapes that the config asks for, made when they are read. */
export function randomModel(config: ModelConfig): OpenModel {
  const shapes = weightShapes(config)
  const fill = noise()
  return {
    config,
    weights: {
      names: [...shapes.keys()],
      has: (name) => shapes.has(name),
      shape: (name) => shapes.get(name)!,
      read: (name) => {
        const values = new Float32Array(size(shapes.get(name)!))
        return name.endsWith('norm.weight') ? values.fill(1) : fill(values)
      },
      close: () => {},
    },
  }
}

/**
 * A folder that `arbor-nb serve --model` takes: config.json, arbor-tiny's tokenizer filled up with made-up words to the model's vocabulary, and a
 * safetensors file in bf16 whose tensors overlap in one block of noise, so that a file of the largest one's size holds them all.
 */
export function writeRandomModel(folder: string, json: Readonly<Record<string, unknown>>): void {
  mkdirSync(folder, { recursive: true })
  const config = modelConfig(json, folder)
  writeFileSync(join(folder, 'config.json'), JSON.stringify(json))
  writeTokenizer(folder, config.vocab)
  const shapes = weightShapes(config)
  const ones = 2 * config.hidden
  const header: Record<string, unknown> = {}
  let index = 0
  let end = ones
  for (const [name, shape] of shapes) {
    const start = name.endsWith('norm.weight') ? 0 : ones + 2 * STRIDE * index++
    header[name] = { dtype: 'BF16', shape, data_offsets: [start, start + 2 * size(shape)] }
    end = Math.max(end, start + 2 * size(shape))
  }
  const text = Buffer.from(JSON.stringify(header))
  const head = Buffer.alloc(8 + Math.ceil(text.length / 8) * 8, ' ')
  head.writeBigUInt64LE(BigInt(head.length - 8))
  text.copy(head, 8)
  const norms = float32ToBf16(new Float32Array(config.hidden).fill(1))
  writeFile(join(folder, 'model.safetensors'), [head, norms, ...noiseInBf16((end - ones) / 2)])
}

function weightShapes(config: ModelConfig): Map<string, readonly number[]> {
  const shapes = new Map<string, readonly number[]>()
  const has = (name: string) => (name.endsWith('.bias') ? config.qkvBias && /[qkv]_proj\.bias$/.test(name) : !config.tiedHead)
  modelParts(config, { has }, ({ pieces, columns }) => {
    for (const [name, rows] of pieces) shapes.set(name, columns === null ? [rows] : [rows, columns])
  })
  return shapes
}

/** Fills arrays with normal numbers: a million are drawn, and pieces of them laid out from random places. */
function noise(): <Values extends Float32Array | Uint16Array>(values: Values) => Values {
  const normal = normals(1, 0)
  const drawn = Float32Array.from({ length: DRAWN }, () => DEVIATION * normal())
  const halves = float32ToBf16(drawn)
  const uniform = uniforms(1, 1)
  return (values) => {
    const from = values instanceof Float32Array ? drawn : halves
    for (let at = 0; at < values.length; at += PIECE) {
      const start = Math.floor(uniform() * (DRAWN - PIECE))
      values.set(from.subarray(start, start + Math.min(PIECE, values.length - at)), at)
    }
    return values
  }
}

function* noiseInBf16(length: number): Iterable<Uint16Array> {
  const fill = noise()
  for (let left = length; left > 0; left -= WRITTEN) yield fill(new Uint16Array(Math.min(left, WRITTEN)))
}

function writeTokenizer(folder: string, vocab: number): void {
  const tiny = join(packageRoot(), 'data', 'models', 'arbor-tiny')
  cpSync(join(tiny, 'tokenizer_config.json'), join(folder, 'tokenizer_config.json'))
  const tokenizer = JSON.parse(readFileSync(join(tiny, 'tokenizer.json'), 'utf8')) as {
    model: { vocab: Record<string, number> }
  }
  const words = tokenizer.model.vocab
  for (let id = Object.keys(words).length; id < vocab; id++)
    words[`Ġ${id.toString(26).replace(/\d/g, (d) => 'qrstuvwxyz'[+d]!)}`] ??= id
  // A made-up word that there was already leaves its number without a text.
  const used = new Set(Object.values(words))
  for (let id = 0; id < vocab; id++) if (!used.has(id)) words[`Ġword${id}`] = id
  writeFileSync(join(folder, 'tokenizer.json'), JSON.stringify(tokenizer))
}

function writeFile(path: string, parts: Iterable<Uint8Array | Uint16Array>): void {
  const file = openSync(path, 'w')
  for (const part of parts) writeSync(file, part)
  closeSync(file)
}

function size(shape: readonly number[]): number {
  return shape.reduce((product, n) => product * n, 1)
}
