import { fileURLToPath } from 'node:url'
import { defineConfig } from 'vitest/config'

export default defineConfig({
  root: fileURLToPath(new URL('..', import.meta.url)),
  test: {
    include: ['src/**/*.test.ts', 'kernels/**/*.test.ts', 'test/**/*.test.ts'],
    setupFiles: ['test/breathe.ts'],
    testTimeout: 180_000, // emulated kernels on a busy machine
    hookTimeout: 600_000, // the first of them builds the emulated GPU
    expect: { poll: { timeout: 15_000 } }, // a second, by default, is short for a page on a busy machine
    pool: 'forks', // native code and tslab's converter want a process of their own
    maxWorkers: 2,
    minWorkers: 1,
  },
})
