// Runs the Python scripts beside the tests: a request in, an answer out, in the environment that test/peers/venv.mjs made.

import { execFile } from 'node:child_process'
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { freshFolder, ROOT } from '../e2e/tiny'

/** What a script may take on a busy machine, in milliseconds: most of it is Python's imports. */
export const SLOW = 300_000

const VENV = join(ROOT, 'build/venv-peers')
export const PYTHON = join(VENV, 'bin/python')

/** Why the peers can't be asked on this machine, or null. */
export function noPeers(): string | null {
  const reason = process.env['ARBOR_PEERS_MISSING'] // npm test tried, and says what was in the way
  if (reason !== undefined) return `no Python environment: ${reason}`
  return existsSync(join(VENV, 'installed.json')) ? null : 'no Python environment: node test/peers/venv.mjs makes it'
}

/** Whether the environment has this package; some are left out where they can't be had. */
export function has(name: string): boolean {
  const lib = join(VENV, 'lib')
  const found = existsSync(lib) ? readdirSync(lib).map((version) => join(lib, version, 'site-packages', name)) : []
  return found.some((path) => existsSync(path))
}

/**
 * One run of `test/peers/<script>`.
 * @param environment more variables for it
 * @throws with the script's own words when it fails
 */
export async function python<Answer>(
  script: string,
  request: object,
  environment: Readonly<Record<string, string>> = {},
): Promise<Answer> {
  const folder = freshFolder()
  const [asked, answered] = [join(folder, 'request.json'), join(folder, 'answer.json')]
  try {
    writeFileSync(asked, JSON.stringify(request))
    await promisify(execFile)(PYTHON, [join(ROOT, 'test/peers', script), asked, answered], {
      cwd: ROOT,
      env: { ...process.env, ...quiet(folder), ...environment },
      maxBuffer: 64 * 2 ** 20,
    })
    return JSON.parse(readFileSync(answered, 'utf8')) as Answer
  } catch (error) {
    const { stderr = '', message } = error as Error & { stderr?: string }
    throw new Error(`${script} failed: ${stderr.slice(-3000) || message}`)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

/** No network, no telemetry, no state outside of the run's own folder. */
function quiet(folder: string): Record<string, string> {
  return {
    DSPY_CACHEDIR: folder,
    HF_HOME: folder,
    HF_HUB_OFFLINE: '1',
    LITELLM_LOCAL_MODEL_COST_MAP: 'True',
    NO_PROXY: '127.0.0.1,localhost',
    PYTHONNOUSERSITE: '1',
    PYTHONUTF8: '1',
    TRANSFORMERS_VERBOSITY: 'error',
  }
}
