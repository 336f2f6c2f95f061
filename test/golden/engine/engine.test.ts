import { describeEachBackend } from './each-backend'
import { describeEngine } from './describe-engine'

describeEachBackend(describeEngine)
