// Where this package lies and what its package.json says.

import { readFileSync } from 'node:fs'
import { join, sep } from 'node:path'
import { packageRoot } from '../engine/package-root'

export interface PackageInfo {
  readonly root: string
  readonly version: string
  readonly engines: { readonly node: string }
  readonly dependencies: Readonly<Record<string, string>>
  readonly optionalDependencies: Readonly<Record<string, string>>
  readonly overrides: Readonly<Record<string, unknown>>
}

export function packageInfo(): PackageInfo {
  const root = packageRoot()
  return { ...(JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as Omit<PackageInfo, 'root'>), root }
}

/** True for a copy that npm installed, false for a clone. */
export function isInstalled({ root }: Pick<PackageInfo, 'root'>): boolean {
  return root.split(sep).includes('node_modules')
}
