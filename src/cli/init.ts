// arbor-nb init: a folder to start from, with what npm, TypeScript and git want to know and a first notebook.

import { mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { basename, join, resolve } from 'node:path'
import { ArborError, OptionError } from '../errors'
import { firstNotebook } from './first-notebook'
import { formatNotebook } from './notebook'
import { parseOptions } from './options'
import { isInstalled, type PackageInfo, packageInfo } from './package-info'

export const help = `Usage: arbor-nb init DIR [--force]

Writes a folder to start from: package.json, tsconfig.json, a first notebook, README.md, .gitignore.

  --force      overwrites these files where they exist; without it nothing is overwritten
  -h, --help   this text`

const NOTEBOOK = 'first.ipynb'

export async function run(argv: readonly string[]): Promise<number> {
  const { values, positionals } = parseOptions(argv, { force: { type: 'boolean' } }, ['DIR'])
  const dir = resolve(positionals[0]!)
  const info = packageInfo()
  const files = folderFiles(basename(dir), info)
  try {
    mkdirSync(dir, { recursive: true })
    const there = readdirSync(dir).filter((name) => name in files)
    if (there.length > 0 && !values.force)
      throw new OptionError(`${dir} has ${there.join(', ')} already. Choose another folder, or overwrite by --force.`)
    for (const [name, content] of Object.entries(files)) writeFileSync(join(dir, name), content)
  } catch (error) {
    if (error instanceof OptionError) throw error
    throw new ArborError(`${dir} can't be written: ${(error as Error).message}`, { cause: error })
  }
  const install = isInstalled(info) ? 'npm install' : `npm install ${quoted(info.root)}`
  const enter = dir === process.cwd() ? [] : [`cd ${quoted(positionals[0]!)}`]
  const steps = [...enter, install, `npx arbor-nb lab ${NOTEBOOK}`]
  process.stdout.write(
    `${dir}\n${Object.keys(files)
      .map((name) => `  ${name}\n`)
      .join('')}\nNow:\n\n`,
  )
  process.stdout.write(steps.map((step) => `  ${step}\n`).join(''))
  return 0
}

/** The files by name. npm honours `overrides` in the package one installs from only, so ours must be repeated there. */
export function folderFiles(name: string, info: PackageInfo): Record<string, string> {
  const manifest = {
    name: packageName(name),
    version: '0.1.0',
    private: true,
    scripts: { lab: `arbor-nb lab ${NOTEBOOK}`, notebook: `arbor-nb run ${NOTEBOOK} --html first.html` },
    dependencies: { 'arbor-nb': `^${info.version}`, 'danfojs-node': info.optionalDependencies['danfojs-node'] },
    overrides: info.overrides,
  }
  return {
    'package.json': json(manifest),
    'tsconfig.json': json({ compilerOptions: COMPILER_OPTIONS }),
    [NOTEBOOK]: formatNotebook(firstNotebook()),
    'README.md': readme(name),
    '.gitignore': ['node_modules/', 'checkpoints/', '.ipynb_checkpoints/', '*.executed.ipynb', 'first.html', ''].join('\n'),
  }
}

/** For the editor and for cells alike: the kernel reads the nearest tsconfig.json. */
const COMPILER_OPTIONS = {
  target: 'ES2022',
  lib: ['ES2023'],
  module: 'ESNext',
  moduleResolution: 'Bundler',
  types: ['node'],
  strict: true,
  noEmit: true,
  skipLibCheck: true,
}

/** A name that npm accepts: lower-case Latin letters and digits, with single dashes between. */
export function packageName(folder: string): string {
  const plain = folder.normalize('NFKD').replace(/\p{M}/gu, '').toLowerCase()
  const name = plain.replace(/[^a-z0-9]+/g, '-').replace(/^-+|-+$/g, '')
  return name === '' || name === 'arbor-nb' || name === 'node-modules' ? 'my-notebooks' : name
}

function readme(name: string): string {
  return `# ${name}

Reinforcement learning of LM programs, in TypeScript, in a notebook, with arbor-nb.

\`\`\`
npm install
npx arbor-nb lab ${NOTEBOOK}
\`\`\`

\`lab\` takes the JupyterLab it finds, or makes one of its own (that needs python3). Without Jupyter, \`npm run notebook\` runs ${NOTEBOOK} and
writes what it shows to first.html.

\`npx arbor-nb lab\` opens the workbook, \`npx arbor-nb doctor\` says what is missing. Other packages are installed by \`npm install\` and imported in
cells; so are .ts files of this folder, by \`import { … } from './file'\`. Cells are checked by tsconfig.json.

The \`overrides\` in package.json belong to danfojs-node (data frames): without them it brings an old native TensorFlow and a spreadsheet reader from outside
the registry. If you drop danfojs-node, drop them too.
`
}

function json(value: unknown): string {
  return `${JSON.stringify(value, null, 2)}\n`
}

/** A path as one would type it in a shell. */
function quoted(path: string): string {
  return /^[\w./@-]+$/.test(path) ? path : `'${path.replaceAll("'", `'\\''`)}'`
}
