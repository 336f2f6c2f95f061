// Who may import whom (DESIGN.md, section 2), checked on the import lines.
import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, relative, resolve } from 'node:path'
import { describe, expect, it } from 'vitest'

const root = join(__dirname, '..')
const src = join(root, 'src')

// What a folder (or file) of src/ may import from src/. Its own folder is always allowed.
const MAY: Record<string, readonly string[]> = {
  grpo: [],
  'protocol.ts': [],
  'errors.ts': [],
  program: ['protocol.ts', 'errors.ts'],
  optimize: ['program', 'grpo', 'protocol.ts', 'errors.ts'],
  runs: ['display', 'protocol.ts', 'errors.ts'],
  display: ['grpo', 'protocol.ts', 'errors.ts'],
  tasks: ['program', 'errors.ts'],
  engine: ['errors.ts'],
  pretrain: ['engine', 'program', 'protocol.ts', 'errors.ts'],
  server: ['engine', 'grpo', 'protocol.ts', 'errors.ts'],
  export: ['engine', 'server', 'protocol.ts', 'errors.ts'],
  'dspy.ts': ['program', 'optimize'],
  'arbor.ts': ['optimize', 'runs'],
  'index.ts': ['dspy.ts', 'arbor.ts', 'program', 'optimize', 'display', 'tasks', 'grpo', 'protocol.ts', 'errors.ts'],
}

// Packages that belong behind one seam.
const ONLY: Record<string, RegExp> = {
  koffi: /^engine\/ops\//,
  '@tensorflow/tfjs': /^engine\/ops\//,
  '@tensorflow/tfjs-node-gpu': /^engine\/ops\//,
  hono: /^server\//,
  openai: /^program\/|\.test\.ts$/,
  tslab: /^display\//, // asked for at run time only, when tslab is the running kernel
}

function files(dir: string): string[] {
  return readdirSync(dir, { withFileTypes: true }).flatMap((entry) => {
    const path = join(dir, entry.name)
    return entry.isDirectory() ? files(path) : path.endsWith('.ts') ? [path] : []
  })
}

function imports(path: string): string[] {
  const text = readFileSync(path, 'utf8')
  return [...text.matchAll(/(?:from\s+|import\s*\(\s*|require\s*\(\s*|^import\s+)['"]([^'"]+)['"]/gm)].map((match) => match[1]!)
}

const unit = (path: string) => relative(src, path).split('/')[0]!

describe('who may import whom', () => {
  for (const path of files(src)) {
    const from = unit(path)
    if (from === 'cli') continue
    const name = relative(root, path)
    const test = /\.(test|fixture)\.ts$/.test(path)
    it(`${name} imports only what its folder may`, () => {
      for (const target of imports(path)) {
        if (target.startsWith('.')) {
          const resolved = resolve(dirname(path), target)
          if (!resolved.startsWith(src)) {
            expect(test, `${name} reaches outside src/: ${target}`).toBe(true)
            continue
          }
          const to = unit(resolved).replace(/^(protocol|errors|index|dspy|arbor)$/, '$1.ts')
          if (to !== from) expect(MAY[from], `${name} imports ${target}`).toContain(to)
        } else {
          const owner = ONLY[target.startsWith('@') ? target.split('/').slice(0, 2).join('/') : target.split('/')[0]!]
          if (owner) expect(relative(src, path), `${name} imports ${target}`).toMatch(owner)
          if (from === 'grpo' && !test) expect(target, `${name} imports a package`).toBe('')
        }
      }
    })
  }
})

describe('the notebook kernel', () => {
  it('imports nothing of src/', () => {
    for (const path of files(join(root, 'kernels', 'jupyter')))
      for (const target of imports(path))
        if (target.startsWith('.'))
          expect(resolve(dirname(path), target).startsWith(src), `${path} imports ${target}`).toBe(false)
  })
})
