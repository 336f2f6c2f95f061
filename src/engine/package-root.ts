// Where this package lies, from src/ as well as from dist/src and from an installed copy.

import { existsSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { ArborError } from '../errors'

/** The folder of our package.json. */
export function packageRoot(): string {
  for (let folder = __dirname; ; folder = dirname(folder)) {
    const manifest = join(folder, 'package.json')
    if (existsSync(manifest) && JSON.parse(readFileSync(manifest, 'utf8')).name === 'arbor-nb') return folder
    if (folder === dirname(folder))
      throw new ArborError(`No package.json of arbor-nb above ${__dirname}: the installation is damaged. Install it again.`)
  }
}
