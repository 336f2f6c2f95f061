// A Python virtual environment from pinned requirement files: made once, kept until one of the files changes.
// Plain JavaScript: tests make theirs before anything is compiled, and `arbor-nb lab` loads this very file.
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'

/** The packages come as wheels only: a test machine must not need a compiler for them. */
const PIP_INSTALL = ['-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', '--no-compile', '--only-binary', ':all:']

/** The environment's interpreter. It is there when `installedFiles(folder)` says so. */
export function venvPython(folder) {
  return process.platform === 'win32' ? join(folder, 'Scripts', 'python.exe') : join(folder, 'bin', 'python')
}

/**
 * Makes what is missing of the environment in `folder`.
 * @param requirements `{ file, noDeps, optional }[]`, installed in this order; `noDeps` leaves out what a file's packages ask for themselves;
 *   without an `optional` one the environment is whole as well
 * @param log hears what is done, a line each
 * @returns `{ python }`, or `{ reason }`: why it can't be had on this machine, and what to do
 */
export function pythonVenv({ folder, requirements, log = () => {} }) {
  const wanted = requirements.map((entry) => ({ ...entry, name: basename(entry.file), hash: hashOf(entry.file) }))
  let done = installedFiles(folder)
  const outdated = wanted.some(({ name, hash }) => name in done && done[name] !== hash)
  if (outdated || Object.keys(done).length === 0) {
    const reason = freshVenv(folder, log)
    if (reason) return { reason }
    done = {}
  }
  for (const { file, name, hash, noDeps, optional } of wanted) {
    if (done[name] === hash) continue
    log(`pip install -r ${name}`)
    const pip = python(folder, [...PIP_INSTALL, ...(noDeps ? ['--no-deps'] : []), '-r', file])
    if (pip.status !== 0) {
      const reason = `pip could not install ${name}: ${lastWords(pip)}`
      if (!optional) return { reason }
      log(`${reason}: going on without`)
      continue
    }
    done = { ...done, [name]: hash }
    writeFileSync(marker(folder), JSON.stringify(done, null, 2))
  }
  return { python: venvPython(folder) }
}

/** Requirement files installed in `folder`, by name, with their hashes; {} where there is no environment. */
export function installedFiles(folder) {
  return existsSync(marker(folder)) && existsSync(venvPython(folder)) ? JSON.parse(readFileSync(marker(folder), 'utf8')) : {}
}

function marker(folder) {
  return join(folder, 'installed.json')
}

/** Answers null, or why there is no environment now. */
function freshVenv(folder, log) {
  log(`python3 -m venv ${folder}`)
  rmSync(folder, { recursive: true, force: true })
  mkdirSync(folder, { recursive: true })
  const made = spawnSync('python3', ['-m', 'venv', folder], { encoding: 'utf8' })
  if (made.status === 0) return null
  rmSync(folder, { recursive: true, force: true })
  if (made.error)
    return 'there is no Python here (python3 was not found). Install it; Debian and Ubuntu: apt install python3-venv'
  const text = made.stdout + made.stderr
  if (/ensurepip|No module named '?venv/.test(text))
    return 'this Python makes no virtual environments. Debian and Ubuntu: apt install python3-venv'
  return `python3 -m venv failed: ${lastWords(made)}`
}

function python(folder, args) {
  return spawnSync(venvPython(folder), args, { encoding: 'utf8', env: { ...process.env, PYTHONNOUSERSITE: '1' } })
}

function hashOf(file) {
  return createHash('sha256').update(readFileSync(file)).digest('hex')
}

/** What a program said last: its last error line, else its end. */
function lastWords({ stdout, stderr, error }) {
  const lines = `${stdout ?? ''}\n${stderr ?? ''}\n${error?.message ?? ''}`.split('\n').filter((line) => line.trim() !== '')
  const errors = lines.filter((line) => /^ERROR/.test(line))
  return (errors.at(-1) ?? lines.slice(-2).join(' ')).slice(0, 500)
}
