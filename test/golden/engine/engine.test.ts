import { openTfjs } from '../../../src/engine/ops/tfjs'
import { describeEngine } from './describe-engine'

describeEngine('tfjs', openTfjs)
