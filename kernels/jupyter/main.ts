// The kernel's process: node main.js CONNECTION_FILE. The protocol starts first, in its own thread, so that Jupyter gets an answer at once;
// the compiler follows here, where the cells will run.

import { readFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { Worker } from 'node:worker_threads'
import { type Connection, FLAG_BYTES, type ToMain, type ToWorker, type WorkerSetup } from './bridge'
import { ownPackageFolder } from './own-package'

function main(): void {
  const file = process.argv[2]
  if (!file) throw new Error('Usage: node main.js CONNECTION_FILE. Jupyter starts this; install it by: arbor-nb kernel install')
  const flags = new SharedArrayBuffer(FLAG_BYTES)
  const setup: WorkerSetup = {
    connection: JSON.parse(readFileSync(file, 'utf8')) as Connection,
    flags,
    historyFile: join(process.env.ARBOR_HOME ?? join(homedir(), '.arbor'), 'kernel', 'history.jsonl'),
    banner: {
      version: versionOf(join(ownPackageFolder(), 'package.json')),
      typescript: versionOf(require.resolve('typescript/package.json')),
    },
  }
  const worker = new Worker(join(__dirname, 'protocol.js'), { workerData: setup })
  const post = (message: ToWorker) => worker.postMessage(message)
  const early: ToMain[] = []
  const keep = (message: ToMain) => void early.push(message)
  worker.on('message', keep)
  worker.on('error', (error) => {
    process.stderr.write(`The kernel's protocol thread failed: ${error.stack}\n`)
    process.exit(1)
  })
  worker.once('online', () => {
    // Loaded late: it brings TypeScript along.
    const { KernelRuntime } = require('./runtime') as typeof import('./runtime')
    const runtime = new KernelRuntime(new Int32Array(flags), post)
    process.on('uncaughtException', (error) => runtime.stray(error))
    process.on('unhandledRejection', (error) => runtime.stray(error))
    runtime.prepare()
    worker.off('message', keep).on('message', (message: ToMain) => runtime.receive(message))
    for (const message of early) runtime.receive(message)
  })
  process.on('SIGINT', () => post({ kind: 'signal' }))
}

function versionOf(packageFile: string): string {
  return (JSON.parse(readFileSync(packageFile, 'utf8')) as { version: string }).version
}

main()
