// Which kind of case is replayed by what. A new kind is a line in the table of its own file; a new file is a line here.
import { adapterReplays } from './adapters'
import type { Replay } from './case'
import { dspyReplays } from './dspy'
import { fewShotReplays } from './few-shot'
import { finetuneReplays } from './finetune'
import { grpoReplays } from './grpo-batch'
import { lossReplays } from './loss'
import { miproReplays } from './mipro'
import { moduleReplays } from './modules'
import { programStateReplays } from './program-state'
import { promptSearchReplays } from './prompt-search'

/** Replays by kind; a kind that isn't here counts as skipped, by name. */
export const replays: Readonly<Record<string, Replay>> = {
  ...lossReplays,
  ...dspyReplays,
  ...adapterReplays,
  ...fewShotReplays,
  ...finetuneReplays,
  ...grpoReplays,
  ...miproReplays,
  ...moduleReplays,
  ...programStateReplays,
  ...promptSearchReplays,
}
