import { describeEngine } from './describe-engine'
import { describeEachBackend } from './each-backend'

describeEachBackend(describeEngine)
