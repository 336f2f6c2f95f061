// Where this package lies and what its package.json says.

import { existsSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { ArborError } from '../errors'

export interface PackageInfo {
  readonly root: string
  readonly version: string
  readonly engines: { readonly node: string }
  readonly dependencies: Readonly<Record<string, string>>
  readonly optionalDependencies: Readonly<Record<string, string>>
}

/** Looks upwards from this file, so it works in src/ and in dist/src/. */
export function packageInfo(): PackageInfo {
  for (let folder = __dirname; folder !== dirname(folder); folder = dirname(folder)) {
    const path = join(folder, 'package.json')
    if (!existsSync(path)) continue
    const json = JSON.parse(readFileSync(path, 'utf8')) as Omit<PackageInfo, 'root'> & { name?: string }
    if (json.name === 'arbor-nb') return { ...json, root: folder }
  }
  throw new ArborError(`No package.json of arbor-nb above ${__dirname}: the installation is damaged. Install it again.`)
}
