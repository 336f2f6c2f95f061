// The server: model, engine, port, and an end that loses nothing.

import type { Engine } from '../engine/engine'
import { resolveModel } from '../engine/model-source'
import { openEngine } from '../engine/open-engine'
import { OptionError } from '../errors'
import { bareModelName } from '../protocol'
import { createApp } from './app'
import { CompletionStore } from './completion-store'
import { Constraints } from './constrain/constraints'
import { EarlierRuns } from './earlier-runs'
import { FineTuning } from './fine-tuning'
import { type App, modelOnDemand } from './first-model'
import { Jobs } from './jobs'
import { loadingApp } from './loading'
import { SavedPolicies } from './saved-policies'
import { type Services, textCodec } from './services'
import { openSocket } from './socket'
import { loadTokenizer } from './tokenizer'

export interface ServerOptions {
  /** A model that comes with arbor-nb, a hub name, a folder or a GGUF file. Without one the first request that names a model has it loaded. */
  readonly model?: string
  readonly device?: 'auto' | 'cpu' | 'cuda' | 'tfjs'
  /** How many GPUs work together; default one device, whichever it is. */
  readonly gpus?: number | 'all'
  /** Of frozen weights; default: bf16 on a GPU and where the CPU computes in it. */
  readonly precision?: 'auto' | 'f32' | 'bf16'
  /** Bytes the process should stay within while it trains, as far as that is possible; default 1.5 GiB. */
  readonly memory?: number
  /** Default 127.0.0.1: this machine only. */
  readonly host?: string
  /** Default: the first free one from 7453 up. */
  readonly port?: number
  /** Folders of adapters, as peft or a checkpoint has them, that answer under a name of their own. */
  readonly adapters?: ReadonlyMap<string, string>
  /** Runs are kept in `runs/` under this folder. */
  readonly storage: string
  /** This package's version, for the files of a run. */
  readonly version: string
  /** Instead of one in a worker thread. */
  readonly engine?: Engine
  /** Hears what is being loaded, a line each. */
  readonly log?: (line: string) => void
  /** Bytes so far and in all, while a model is fetched. */
  readonly progress?: (bytes: number, total: number) => void
}

export interface RunningServer {
  /** http://HOST:PORT/v1/ */
  readonly baseUrl: string
  readonly host: string
  readonly port: number
  /** Ends connections, checkpoints the jobs that run, closes the engine. */
  close(): Promise<void>
}

/**
 * Binds the port first (a taken one is told before a model is loaded; until then requests get 503), then loads the model.
 * @throws OptionError for a taken port, ModelError for a model that cannot be had
 */
export async function startServer(options: ServerOptions): Promise<RunningServer> {
  let app: App = loadingApp(options.model)
  const { host, port, baseUrl, close: closeSocket } = await openSocket((request) => app(request), options)
  const loaded: Loaded[] = []
  const load = async (model: string): Promise<App> => {
    const one = await loadModel(model, options)
    loaded.push(one)
    return createApp(one.services)
  }
  const close = async () => {
    await closeSocket()
    await Promise.all(loaded.map(closeModel))
  }
  if (options.model === undefined) app = modelOnDemand(options.storage, load)
  else
    try {
      app = await load(options.model)
    } catch (error) {
      await closeSocket()
      throw error
    }
  return { baseUrl, host, port, close }
}

interface Loaded {
  readonly engine: Engine
  readonly services: Services
}

async function loadModel(model: string, options: ServerOptions): Promise<Loaded> {
  const { device = 'auto', precision = 'auto', memory, gpus, log } = options
  const wishes = { device, precision, ...(memory !== undefined && { memory }), ...(gpus && { gpus }), ...(log && { log }) }
  const engine = options.engine ?? (await openEngine(wishes))
  try {
    return { engine, services: await loadServices(engine, model, options) }
  } catch (error) {
    await Promise.allSettled([engine.close()])
    throw error
  }
}

async function closeModel({ engine, services }: Loaded): Promise<void> {
  await Promise.all([services.jobs.interrupt(), services.fineTuning.interrupt()])
  await engine.close()
}

async function loadServices(engine: Engine, asked: string, options: ServerOptions): Promise<Services> {
  const { storage, version, log, progress } = options
  const name = bareModelName(asked)
  const source = await resolveModel(name, { ...(log ? { log } : {}), ...(progress ? { progress } : {}) })
  log?.(`Loading ${source.name} (${source.origin}) …`)
  const [model, tokenizer] = await Promise.all([engine.load(source), loadTokenizer(source)])
  log?.(
    `${model.name}: ${(model.parameters / 1e6).toFixed(model.parameters < 1e7 ? 1 : 0)} M parameters in ${model.dtype} on ${model.deviceDescription}`,
  )
  const codec = textCodec(tokenizer, model)
  const completions = new CompletionStore()
  const modelNames = [...new Set([name, source.name, model.name])]
  const setup = { engine, model, modelNames, basePath: source.path, codec, storage, version, ...(log ? { log } : {}) }
  const taken = modelNames.find((one) => options.adapters?.has(one))
  if (taken !== undefined) throw new OptionError(`"${taken}" is the base model's own name; give the adapter another.`)
  const saved = new SavedPolicies({ ...setup, ...(options.adapters ? { adapters: options.adapters } : {}) })
  const fineTuning = new FineTuning({ ...setup, saved })
  const jobs = new Jobs({ ...setup, completions, fineTuning, saved })
  for (const name of options.adapters?.keys() ?? []) await openAdapter(saved, name, log)
  const constraints = new Constraints(codec, model)
  const earlier = new EarlierRuns(storage)
  return { engine, model, modelNames, codec, completions, constraints, jobs, fineTuning, saved, earlier, ...(log ? { log } : {}) }
}

/** An adapter that can't be read, or is another model's, ends the start. */
async function openAdapter(saved: SavedPolicies, name: string, log?: (line: string) => void): Promise<void> {
  const found = saved.locate(name)!
  await saved.open(found)
  log?.(`${name}: the adapter in ${found.dir}`)
}
