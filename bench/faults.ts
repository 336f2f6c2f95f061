// A server that is killed again and again at any moment while it trains: does a run that is resumed each time end at the very records and weights of
// one that was left alone? Part of npm run soak; npm run bench -- faults [-- --kills 12 --steps 120 --seed 0]

import { join } from 'node:path'
import { parseArgs } from 'node:util'
import type { ArborGRPO } from '../src/optimize'
import { adapterBytes, compile, exampleOf, freshFolder, recordsOnDisk, runFolder, serve, timeless } from '../test/e2e/tiny'
import { random } from './_mutations'
import { machine } from './_report'

const MAX_KILLS = 100
const LAST_MS = 1500 // a server lives at most this long

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      kills: { type: 'string', default: '12' },
      steps: { type: 'string', default: '120' },
      seed: { type: 'string', default: '0' },
    },
  })
  const kills = Math.min(MAX_KILLS, Number(values.kills))
  const options = { numTrainSteps: Number(values.steps), numStepsForVal: 2, numThreads: 2 }
  const alone = await train(freshFolder(), options)
  const draw = random(Number(values.seed))
  const storagePath = freshFolder()
  const checkpoint = freshFolder()
  let killed = 0
  let resumed = 0
  let outcome: Outcome | null = null
  while (outcome === null) {
    const after = killed < kills ? LAST_MS * draw() : null
    outcome = await train(storagePath, { ...options, checkpoint }, { after, resume: resumed > 0 })
    if (outcome === null) killed++
    resumed++
    say(`${killed} kills, ${outcome === null ? 'going on' : 'done'}`)
  }
  const equal = {
    records: JSON.stringify(outcome.records) === JSON.stringify(alone!.records),
    weights: outcome.weights.equals(alone!.weights),
  }
  process.stdout.write(
    `${killed} kills in ${options.numTrainSteps} steps; records ${equal.records ? 'equal' : 'DIFFER'}, weights ${equal.weights ? 'equal' : 'DIFFER'}\n`,
  )
  process.stdout.write(`${JSON.stringify({ title: 'faults', ...machine(), killed, steps: options.numTrainSteps, ...equal })}\n`)
  if (!equal.records || !equal.weights) process.exitCode = 1
}

interface Outcome {
  readonly records: readonly object[]
  readonly weights: Buffer
}

type Options = Parameters<typeof compile>[1]

/** The run's end; null when its server was killed before. */
async function train(
  storagePath: string,
  options: Options,
  { after = null, resume = false }: { after?: number | null; resume?: boolean } = {},
): Promise<Outcome | null> {
  const server = await serve({ storagePath })
  let timer: NodeJS.Timeout | undefined
  let compiler: ArborGRPO | undefined
  const kill = () => process.kill(server.pid, 'SIGKILL')
  if (after !== null) timer = setTimeout(kill, after)
  try {
    await compile(server, options, {
      valset: [exampleOf('one')],
      watch: (made) => (compiler = made),
      ...(resume && { resume: true }),
    })
  } catch (error) {
    if (after === null) throw error
    return null
  } finally {
    clearTimeout(timer)
    await server.close()
  }
  const id = compiler!.run!.jobId
  const folder = join(runFolder(storagePath, id), 'checkpoints', 'checkpoint_final')
  return { records: recordsOnDisk(storagePath, id).map(timeless), weights: adapterBytes(folder) }
}

function say(line: string): void {
  process.stderr.write(`${line}\n`)
}

void main()
