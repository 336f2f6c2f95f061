// Everything a notebook may import, by name; nothing else. Registers the display as the observer of progress.

import { drawProgress } from './display'
import { setProgressObserver } from './program/context'

export * as plot from './display'
export * as arbor from './optimize'
export { LoraConfig } from './optimize/lora-config'
export * as dspy from './program'

setProgressObserver(drawProgress)
