// What a machine with a GPU needs besides a checkout when it has neither Node nor npm: a folder of archives, and a script that unpacks them there.
//   node bench/portable.mjs OUT [--library libarbor_cuda.so]
// Then on that machine, in the checkout, with OUT copied:
//   . OUT/setup.sh
//   node dist/bench/gpu.js --model 1.5b
//   node node_modules/vitest/vitest.mjs run --config test/vitest.config.mts src/engine/ops/cuda
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { fail, root, setUp } from '../src/cli/setup.mjs'

/** Packages that the engine, the server and their tests load; with what these need. */
const PACKAGES = [
  ...['@eslint-community/regexpp', '@hono/node-server', '@huggingface/gguf', '@huggingface/hub', '@huggingface/jinja'],
  ...['@huggingface/tokenizers', '@tensorflow/tfjs', 'fast-check', 'highlight.js', 'hono', 'katex', 'koffi', 'marked'],
  ...['minisearch', 'openai', 'vitest', 'zod'],
]
/** What nothing of these loads when it runs; of TensorFlow.js, all builds but Node's. */
const UNUSED = [
  ...['*.map', '*.md', '*.d.ts', '*.d.mts', '*.d.cts'],
  ...['src', 'dist/*.min.js', 'dist/*.fesm*', 'dist/*.es2017*', 'dist/test*'].map((path) => `@tensorflow/*/${path}`),
]

const SETUP = `# In the checkout: . this file
here=$(cd "$(dirname "\${BASH_SOURCE[0]}")" && pwd)
mkdir -p "$here/bin"
for archive in node_modules dist; do xz -dc "$here/$archive.tar.xz" | tar -x; done
xz -dc "$here/node.xz" > "$here/bin/node" && chmod +x "$here/bin/node" && export PATH="$here/bin:$PATH"
if [ -f "$here/library.xz" ]; then xz -dc "$here/library.xz" > "$here/libarbor_cuda.so"; export ARBOR_CUDA_LIBRARY="$here/libarbor_cuda.so"; fi
`

const { values, positionals } = parseArgs({ options: { library: { type: 'string' } }, allowPositionals: true })
if (positionals.length !== 1) fail('node bench/portable.mjs OUT [--library libarbor_cuda.so]')
const out = resolve(positionals[0])
await setUp()
mkdirSync(out, { recursive: true })
pack('node_modules', UNUSED, closure(PACKAGES))
pack('dist', ['*.map', '*.d.ts', '.tsbuildinfo'], ['dist'])
shell(`cp "${process.execPath}" "${join(out, 'node')}" && { strip -s "${join(out, 'node')}" || true; }`)
compress(join(out, 'node'), 'node.xz')
rmSync(join(out, 'node'))
if (values.library !== undefined) compress(resolve(values.library), 'library.xz')
writeFileSync(join(out, 'setup.sh'), SETUP)

/** Folders of these packages and of all that they need, as the lock file has them. */
function closure(names) {
  const { packages } = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8'))
  const found = new Set()
  const visit = (name, from) => {
    // As Node looks: beside whoever asks, then further up.
    for (let folder = from; ; folder = folder.slice(0, Math.max(0, folder.lastIndexOf('/node_modules/')))) {
      const path = `${folder === '' ? '' : `${folder}/`}node_modules/${name}`
      if (packages[path] && existsSync(join(root, path))) {
        if (found.has(path)) return
        found.add(path)
        const { dependencies, optionalDependencies, peerDependencies } = packages[path]
        for (const needed of Object.keys({ ...dependencies, ...optionalDependencies, ...peerDependencies })) visit(needed, path)
        return
      }
      if (folder === '') return // for another platform, or a peer that is not installed
    }
  }
  for (const name of names) visit(name, '')
  return [...found]
}

function pack(name, unused, paths) {
  shell(`tar -c --no-recursion -T - | xz -7 -T0 > "${join(out, `${name}.tar.xz`)}"`, files(unused, paths))
}

/** The files under these folders, those of packages inside of packages left to their own folder. */
function files(unused, paths) {
  const conditions = unused.map((pattern) => `-not -path '*/${pattern}'`).join(' ')
  const lists = paths.map((path) => shell(`find "${path}" -path "${path}/node_modules" -prune -o \\( -type f -o -type l \\) ${conditions} -print`))
  return lists.join('')
}

function compress(from, name) {
  shell(`xz -6 -T0 -c "${from}" > "${join(out, name)}"`)
}

function shell(command, input) {
  const result = spawnSync('bash', ['-o', 'pipefail', '-c', command], { cwd: root, input, encoding: 'utf8', maxBuffer: 1 << 28 })
  if (result.status !== 0) fail(`${command.slice(0, 200)}: ${result.stderr}`)
  return result.stdout
}
