// Where this package lies.

import { existsSync, readFileSync } from 'node:fs'
import { dirname, join, parse } from 'node:path'

/** The folder of the package this file belongs to: what `import 'arbor-nb'` means where no nearer one is installed. */
export function ownPackageFolder(): string {
  for (let folder = __dirname; folder !== parse(folder).root; folder = dirname(folder)) {
    const file = join(folder, 'package.json')
    if (existsSync(file) && JSON.parse(readFileSync(file, 'utf8')).name === 'arbor-nb') return folder
  }
  throw new Error(`No package.json of arbor-nb above ${__dirname}: the installation is incomplete; install arbor-nb again`)
}
