// Tests of native ops wait for nothing, so a worker would hear no message for as long as a file of them takes; after a minute vitest gives it up.
import { setImmediate as turn } from 'node:timers/promises'
import { afterEach } from 'vitest'

afterEach(() => turn())
