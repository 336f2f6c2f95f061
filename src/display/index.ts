// Step records → something to look at. Knows no engine and no HTTP; a value shows itself by `Symbol.for('Jupyter.display')`.

export { type ProgressOptions, progress } from './bars'
export {
  type CandidateScoresOptions,
  candidateScores,
  type ScoredCandidate,
} from './candidate-scores'
export { type BeforeAfter, type CompareOptions, compareBars } from './compare-bars'
export { type Curve, type CurvePanels, type CurvesOptions, curves } from './curves'
export { diagnose, type Remark } from './diagnosis'
export { Figure } from './figure'
export { type DataFrame, frame } from './frame'
export { groupAdvantages } from './group-advantages'
export { type LiveRun, type LiveRunOptions, liveRun } from './live'
export { type LiveChart, liveChart } from './live-chart'
export { type Displayable, type DisplayHost, type MimeBundle, show } from './mime'
export { drawProgress, type ProgressLike } from './progress'
export { type RewardCurveOptions, type RunRecords, rewardCurve, type ValidationPoint } from './reward-curve'
export { type ScoreAgainstCostOptions, type ScoredCost, scoreAgainstCost } from './score-against-cost'
export { signalShare } from './signal-share'
export { type Stack, stackedBars } from './stacked-bars'
export { type RolloutTableOptions, type Row, rolloutTable, table } from './table'
export { type TogetherOptions, together } from './together'
export { drawWarning } from './warnings'
