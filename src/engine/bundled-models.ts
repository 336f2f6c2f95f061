// Models that lie in this package itself: they need no network, and a notebook in any folder finds them by name.

import { existsSync, readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { ModelError } from '../errors'
import { packageRoot } from './package-root'

/** What `npm start`, the workbook and the tests run on. */
export const DEFAULT_MODEL = 'arbor-tiny'

/** The folders of the models that come with arbor-nb, under the package's own, by name. */
const FOLDERS: Readonly<Record<string, string>> = {
  [DEFAULT_MODEL]: 'data/models/arbor-tiny',
  'arbor-tiny-control': 'data/models/arbor-tiny-control', // the workbook's control: as good an answer in any style
}

export const BUNDLED_MODELS: readonly string[] = Object.keys(FOLDERS)

export interface BundledModel {
  readonly name: string
  readonly kind: 'folder'
  readonly path: string
  readonly origin: string
  readonly bytes: number
}

/** The model of that name, or null when none such comes with arbor-nb. Throws ModelError when its files are gone. */
export function bundledModel(name: string, root: string = packageRoot()): BundledModel | null {
  if (!Object.hasOwn(FOLDERS, name)) return null
  const path = join(root, FOLDERS[name]!)
  if (!existsSync(join(path, 'config.json')))
    throw new ModelError(
      `${name} comes with arbor-nb, but ${path} is missing. Install arbor-nb again; in a clone: git checkout -- ${FOLDERS[name]}.`,
    )
  const bytes = readdirSync(path).reduce((sum, file) => sum + statSync(join(path, file)).size, 0)
  return { name, kind: 'folder', path, origin: 'comes with arbor-nb', bytes }
}
