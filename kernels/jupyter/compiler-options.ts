// Compiler options of a notebook: strict, with Node's types, unless the nearest tsconfig.json says otherwise.

import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { type CompilerOptions, typescript } from './typescript'

const load = createRequire(__filename)

/** What a tsconfig may not decide here: how cells are emitted and found is the kernel's own business; unused names are for later cells. */
const OURS = [
  ...[
    'module',
    'target',
    'moduleDetection',
    'verbatimModuleSyntax',
    'isolatedModules',
    'isolatedDeclarations',
    'allowJs',
    'checkJs',
  ],
  ...[
    'outDir',
    'outFile',
    'rootDir',
    'rootDirs',
    'noEmit',
    'noEmitOnError',
    'noEmitHelpers',
    'importHelpers',
    'emitDeclarationOnly',
  ],
  ...[
    'declaration',
    'declarationMap',
    'declarationDir',
    'stripInternal',
    'sourceMap',
    'inlineSourceMap',
    'inlineSources',
    'mapRoot',
    'sourceRoot',
  ],
  ...[
    'composite',
    'incremental',
    'tsBuildInfoFile',
    'noUnusedLocals',
    'noUnusedParameters',
    'configFilePath',
    'noLib',
    'esModuleInterop',
  ],
]

/** Options for cells in folder `cwd`; `ownPackage` is what `arbor-nb` means where none is installed. */
export function compilerOptions(cwd: string, ownPackage: string): CompilerOptions {
  const ts = typescript()
  const own: Record<string, string[]> = resolveFrom(join(cwd, 'cell.js'), 'arbor-nb/package.json')
    ? {}
    : { 'arbor-nb': [ownPackage] }
  const given = tsconfig(cwd)
  return {
    strict: true,
    lib: ['lib.es2023.d.ts'],
    // As bundlers do: extensions may be left out, and types behind a package's `exports` map are found.
    moduleResolution: ts.ModuleResolutionKind.Bundler,
    allowImportingTsExtensions: true,
    ...given,
    types: ['node', ...(given.types ?? [])],
    typeRoots: [...(ts.getEffectiveTypeRoots({}, { getCurrentDirectory: () => cwd }) ?? []), ...nodeTypes(cwd)],
    paths: { ...own, ...given.paths },
  }
}

/** The options of the nearest tsconfig.json at or above `cwd`; a broken one counts as none. */
function tsconfig(cwd: string): CompilerOptions {
  const ts = typescript()
  const file = ts.findConfigFile(cwd, ts.sys.fileExists)
  if (!file) return {}
  const host = { ...ts.sys, readDirectory: () => [], onUnRecoverableConfigFileDiagnostic: () => undefined }
  const options: CompilerOptions = { ...ts.getParsedCommandLineOfConfigFile(file, {}, host)?.options }
  for (const name of OURS) delete options[name]
  const { NodeNext, Node16, Bundler } = ts.ModuleResolutionKind
  // The modes of Node ask each file for its package's type, which a cell hasn't; they find the same packages as Bundler.
  if (options.moduleResolution === NodeNext || options.moduleResolution === Node16) options.moduleResolution = Bundler
  return options
}

/** Node's types as installed with this package, for notebooks that have none of their own. */
function nodeTypes(cwd: string): string[] {
  const file = resolveFrom(join(cwd, 'cell.js'), '@types/node/package.json') ?? load.resolve('@types/node/package.json')
  return [dirname(dirname(file))]
}

/** Path of module `id` as seen from `file`, or null when there is none. */
export function resolveFrom(file: string, id: string): string | null {
  try {
    return createRequire(file).resolve(id)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'MODULE_NOT_FOUND' || code === 'ERR_PACKAGE_PATH_NOT_EXPORTED') return null
    throw error
  }
}
