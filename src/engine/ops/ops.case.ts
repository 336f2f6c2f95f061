// One table of cases for every op and every backend. describe-ops.ts checks them; a benchmark may time them.

import { attentionCases } from './cases/attention-cases'
import type { OpCase } from './cases/case'
import { headCases } from './cases/head-cases'
import { linearCases } from './cases/linear-cases'
import { rowCases } from './cases/row-cases'

export type { OpCase } from './cases/case'

export const opCases: readonly OpCase[] = [...rowCases, ...linearCases, ...attentionCases, ...headCases]
