// What people get wrong: each error names the value and says what to do, and the server lives on.

import { cpSync, readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { ContextWindowExceededError, OptionError } from '../../src/errors'
import type { ServerInfo } from '../../src/optimize'
import type { TrainKwargs } from '../../src/protocol'
import { compile, exampleOf, failureOf, freshFolder, MODEL, ROOT, serve, TRAIN_KWARGS, tinyLM, whyNot } from './tiny'

let missing: string | null
let server: ServerInfo
beforeAll(async () => {
  missing = await whyNot()
  if (missing === null) server = await serve()
})
beforeEach(({ skip }) => skip(missing !== null, missing ?? ''))
afterAll(() => server?.close())

const said = async (run: Promise<unknown>) => (await failureOf(run)).message

describe('startServer', () => {
  it('a port that is taken', async () => {
    expect(await said(serve({ port: server.port }))).toMatch(new RegExp(`Port ${server.port} is taken.*another --port`))
  })

  it('a model that is not there', async () => {
    expect(await said(serve({ model: '/no/such/folder' }))).toMatch(/\/no\/such\/folder: no such file or folder/)
    expect(await said(serve({ model: 'tinychat' }))).toMatch(
      /"tinychat" is no model: give arbor-tiny .*, a folder, a \.gguf file, or a name/,
    )
  })

  it('a folder that lacks a file, or holds one cut short', async () => {
    const folder = freshFolder()
    cpSync(join(MODEL, 'config.json'), join(folder, 'config.json'))
    expect(await said(serve({ model: folder }))).toMatch(/missing tokenizer\.json, model\.safetensors/)
    cpSync(MODEL, folder, { recursive: true })
    truncateSync(join(folder, 'model.safetensors'), 200_000)
    expect(await said(serve({ model: folder }))).toMatch(/model\.safetensors.*(200000|short|cut).*again/s)
  })

  it('a GGUF file cut short, of a type that is not read, or none at all', async () => {
    const whole = readFileSync(join(ROOT, 'test/golden/gguf/tiny-llama.gguf'))
    const path = join(freshFolder(), 'model.gguf')
    writeFileSync(path, whole.subarray(0, whole.length - 1000))
    expect(await said(serve({ model: path }))).toMatch(/model\.gguf.*(short|cut|whole|bytes).*again/s)
    writeFileSync(path, withTensorType(whole, 12)) // Q4_K
    expect(await said(serve({ model: path }))).toMatch(/model\.gguf.*Q4_K.*F32, F16.*Q8_0.*Take a file of one of these/s)
    writeFileSync(path, 'no model at all')
    expect(await said(serve({ model: path }))).toMatch(/model\.gguf: not a whole GGUF file/)
  })

  it('a device that is not here', async () => {
    expect(await said(serve({ device: 'quantum' as 'cpu' }))).toMatch(/--device.*quantum.*cpu, cuda, tfjs/)
  })
})

describe('compile', () => {
  it('an LM of another model', async () => {
    const message = await said(compile(server, {}, { lm: tinyLM(server, {}, 'somebody/else') }))
    expect(message).toMatch(/base model ".*tiny-chat", not "somebody\/else".*--model somebody\/else/)
  })

  it('an LM without a provider', async () => {
    expect(await said(compile(server, {}, { lm: tinyLM(server, { provider: undefined }) }))).toMatch(
      /provider: new arbor\.ArborProvider/,
    )
  })

  it('an empty trainset', async () => {
    expect(await said(compile(server, {}, { trainset: [] }))).toMatch(/The trainset is empty/)
  })

  it('an unknown key in trainKwargs, or a value that cannot be', async () => {
    const trainKwargs = (more: object) => ({ trainKwargs: { ...TRAIN_KWARGS, ...more } as TrainKwargs })
    expect(await said(compile(server, trainKwargs({ learning_rat: 1 })))).toMatch(
      /no "learning_rat"\. Did you mean "learning_rate"\?/,
    )
    expect(await said(compile(server, trainKwargs({ loss_type: 'ppo' })))).toMatch(/loss_type.*"ppo"/)
    expect(await said(compile(server, trainKwargs({ temperature: 0.5 })))).toMatch(/temperature 1.*temperature: 0\.5.*agree/)
  })

  it('a prompt longer than the context', async () => {
    const error = await failureOf(compile(server, { numDspyExamplesPerGrpoStep: 1 }, { trainset: [exampleOf('Q!'.repeat(400))] }))
    expect(error).toBeInstanceOf(ContextWindowExceededError)
    expect(error.message).toMatch(/maximum context length is 256 tokens.*resulted in \d+ tokens.*Shorten/s)
  })

  it('a metric that is none', async () => {
    const error = await failureOf(compile(server, { metric: 'exact' as never }))
    expect(error).toBeInstanceOf(OptionError)
    expect(error.message).toMatch(/needs a metric: a function/)
  })

  it('more rollouts than fit at once are done in turns', async () => {
    const many = { numDspyExamplesPerGrpoStep: 6, numRolloutsPerGrpoStep: 40, numTrainSteps: 1, numThreads: 240 }
    const { compiler } = await compile(server, many, { lm: tinyLM(server, { maxTokens: 200 }) })
    expect(compiler.run!.records[0]!.rows_total).toBe(240)
    expect(compiler.run!.records[0]!.logprob_gap_max).toBeLessThan(1e-5)
  })

  it('after all that the server still trains', async () => {
    const { compiler } = await compile(server, { numTrainSteps: 1 })
    expect(compiler.run!.records).toHaveLength(1)
  })
})

/** The file with the type of its first weight matrix changed: a name, then dimensions, then the type. */
function withTensorType(file: Buffer, type: number): Buffer {
  const changed = Buffer.from(file)
  const name = 'blk.0.attn_q.weight'
  const at = changed.indexOf(name) + name.length
  const dimensions = changed.readUInt32LE(at)
  changed.writeUInt32LE(type, at + 4 + 8 * dimensions)
  return changed
}
