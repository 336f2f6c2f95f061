// arbor-nb serve: the server until somebody ends it: Ctrl-C, a signal, or (started by a notebook) the end of its owner.

import { existsSync } from 'node:fs'
import { resolve } from 'node:path'
import { arborHome } from '../engine/arbor-home'
import { PRECISION_WISHES } from '../engine/precision'
import { OptionError } from '../errors'
import { type RunningServer, startServer } from '../server/main'
import { choiceOption, numberOption, parseOptions } from './options'
import { packageInfo } from './package-info'
import { progressReporter } from './progress'

export const help = `Usage: arbor-nb serve [--model MODEL] [options]

Serves a base model and trains policies on it: OpenAI's chat completions and Arbor's training protocol.

  --model MODEL     arbor-tiny (it comes with arbor-nb), a name on the Hugging Face hub, a folder, or a .gguf file
                    (default: the one that the first request names is loaded then)
  --adapter N=DIR   a LoRA adapter, as peft or a checkpoint has it, that answers under the model name N; may be given several times
  --device DEVICE   cpu, cuda, tfjs or auto (default: $ARBOR_DEVICE, else auto)
  --gpus N          GPUs that work together, each with the whole model: a number, or all (default: 1)
  --precision P     of frozen weights: f32, bf16 or auto (default: $ARBOR_PRECISION, else bf16 on a GPU and where the CPU computes in it)
  --memory GIB      what the server should stay within while it trains, as far as the model's size allows (default 1.5;
                    less is slower; on a GPU what weights and activations may take, by default about twice the weights, 7 GiB at least)
  --host HOST       address to listen on (default 127.0.0.1: this machine only; there is no password)
  --port PORT       default: the first free port from 7453 up
  --storage FOLDER  where runs and checkpoints are kept (default: $ARBOR_HOME, else ~/.arbor)
  -h, --help        this text

Ctrl-C checkpoints the jobs that run and ends; a second Ctrl-C ends at once.`

// Not in the help: a notebook that starts the server passes these.
const OPTIONS = {
  model: { type: 'string' },
  adapter: { type: 'string', multiple: true },
  device: { type: 'string' },
  gpus: { type: 'string' },
  precision: { type: 'string' },
  memory: { type: 'string' },
  host: { type: 'string' },
  port: { type: 'string' },
  storage: { type: 'string' },
  'owner-pipe': { type: 'boolean' }, // end when stdin closes
  'ready-line': { type: 'boolean' }, // one line of JSON on stdout when requests are answered
} as const

export async function run(argv: readonly string[]): Promise<number> {
  const { values } = parseOptions(argv, OPTIONS)
  const device = choiceOption(values.device ?? process.env['ARBOR_DEVICE'] ?? 'auto', '--device', ['auto', 'cpu', 'cuda', 'tfjs'])
  const gpus = values.gpus === 'all' ? 'all' : numberOption(values.gpus, '--gpus', { min: 1, integer: true })
  const precision = choiceOption(values.precision ?? 'auto', '--precision', PRECISION_WISHES)
  const memory = numberOption(values.memory, '--memory', { min: 0.5 })
  const port = numberOption(values.port, '--port', { min: 0, max: 65535, integer: true })
  const adapters = adapterFolders(values.adapter ?? [], values.model)
  const ended = endOfService(values['owner-pipe'] === true)
  const server = await startServer({
    ...(values.model === undefined ? {} : { model: values.model }),
    ...(adapters.size === 0 ? {} : { adapters }),
    device,
    ...(gpus === undefined ? {} : { gpus }),
    precision,
    ...(memory === undefined ? {} : { memory: memory * 1024 ** 3 }),
    ...(values.host === undefined ? {} : { host: values.host }),
    ...(port === undefined ? {} : { port }),
    storage: values.storage ?? arborHome(),
    version: packageInfo().version,
    log: say,
    progress: progressReporter(),
  })
  announce(server, values['ready-line'] === true)
  say(`Ending (${await ended.wait()}): checkpointing the jobs that run …`)
  await server.close()
  return 0
}

/** `--adapter NAME=FOLDER`, each. */
export function adapterFolders(given: readonly string[], model: string | undefined): Map<string, string> {
  const folders = new Map<string, string>()
  for (const text of given) {
    const [, name, folder] = /^([A-Za-z0-9][\w./-]*)=(.+)$/.exec(text) ?? []
    if (name === undefined || folder === undefined)
      throw new OptionError(`--adapter ${text}: NAME=FOLDER is needed, the name of letters, digits, ".", "_", "-" and "/".`)
    if (folders.has(name)) throw new OptionError(`--adapter ${name} is given twice.`)
    if (!existsSync(folder)) throw new OptionError(`--adapter ${text}: there is no folder ${folder}.`)
    folders.set(name, resolve(folder))
  }
  if (folders.size > 0 && model === undefined) throw new OptionError('--adapter needs the --model that it stands on.')
  return folders
}

function announce(server: RunningServer, readyLine: boolean): void {
  say(`Serving at ${server.baseUrl} (Ctrl-C to end)`)
  say(`Jobs, charts and rollouts: ${new URL('/', server.baseUrl).href}`)
  if (readyLine) process.stdout.write(`${JSON.stringify({ base_url: server.baseUrl, pid: process.pid })}\n`)
}

function say(line: string): void {
  process.stderr.write(`${line}\n`)
}

/**
 * Watches for the end from the first moment: before the server runs it ends the process, afterwards `wait` resolves with the reason.
 * An owner that died has closed all pipes, so writing to them must not throw.
 */
function endOfService(ownerPipe: boolean): { wait(): Promise<string> } {
  let serving: ((reason: string) => void) | null = null
  let signals = 0
  const end = (reason: string) => {
    if (serving === null) process.exit(130)
    serving(reason) // a second call changes nothing: the end is under way
  }
  for (const signal of ['SIGINT', 'SIGTERM'] as const)
    process.on(signal, () => {
      if (++signals > 1) process.exit(130)
      end(signal)
    })
  for (const stream of [process.stdout, process.stderr]) stream.on('error', () => {})
  if (ownerPipe) for (const event of ['end', 'close'] as const) process.stdin.once(event, () => end('its owner is gone'))
  if (ownerPipe) process.stdin.resume()
  return { wait: () => new Promise((resolve) => (serving = resolve)) }
}
