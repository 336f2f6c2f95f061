// Everything a notebook may import, by name; nothing else. Registers the display as the observer of progress and of warnings.

import { drawProgress, drawWarning } from './display'
import { configure, setProgressObserver } from './program/context'

export * as arbor from './arbor'
export * as plot from './display'
export * as dspy from './dspy'
export { LoraConfig } from './optimize/lora-config'
export * as tasks from './tasks'

setProgressObserver(drawProgress)
configure({ onWarning: drawWarning })
