// npm run bench -- NAME [options]: compiles and runs bench/NAME.ts; without a name lists what there is.
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { fail, root, run, setUp } from '../src/cli/setup.mjs'

const names = readdirSync(join(root, 'bench')).filter((file) => file.endsWith('.ts') && !file.startsWith('_')).map((file) => file.slice(0, -3))
const [name, ...rest] = process.argv.slice(2)
if (!name || !names.includes(name)) fail(`npm run bench -- NAME, one of: ${names.join(', ')}`)
await setUp()
process.exit(run(process.execPath, [join(root, 'dist', 'bench', `${name}.js`), ...rest], { mayFail: true }))
