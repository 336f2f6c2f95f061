import { describeLocalEngine } from '../../test/engine/describe-local-engine'
import { openBackend } from './ops/open-backend'

describeLocalEngine('tfjs', () => openBackend('tfjs'))
describeLocalEngine('cpu', () => openBackend('cpu'))
