import { describeFullTraining } from './describe-full'
import { describeEachBackend } from './each-backend'

describeEachBackend(describeFullTraining)
