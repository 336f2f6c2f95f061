import { execFileSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { init } from './launch'

const root = join(__dirname, '..', '..')
const built = join(root, 'dist', 'src', 'index.js')

describe('init', () => {
  it('remembers where runs are kept and on which device', async () => {
    expect(await init({ storagePath: '/somewhere', device: 'tfjs' })).toEqual({ storagePath: '/somewhere', device: 'tfjs' })
    expect((await init()).device).toBe(process.env.ARBOR_DEVICE ?? 'auto')
  })
})

describe('startServer', () => {
  // A program with nothing else to do: an unreferenced child would let Node end in the middle of close().
  it('lets a program wait for the end of its server', () => {
    expect(existsSync(built), 'run npm run build first').toBe(true)
    const model = join(root, 'test', 'fixtures', 'tiny-chat')
    const program = `
      const { arbor } = require(${JSON.stringify(built)})
      arbor.startServer(${JSON.stringify(model)}, { device: 'tfjs' }).then(async (server) => {
        await server.close()
        console.log('closed', arbor.status().length)
      })`
    expect(execFileSync(process.execPath, ['-e', program], { encoding: 'utf8' })).toBe('closed 0\n')
  })
})
