// Step records → something to look at. Knows no engine and no HTTP; a value shows itself by `Symbol.for('Jupyter.display')`.

export { type BeforeAfter, type CompareOptions, compareBars } from './compare-bars'
export { diagnose, type Remark } from './diagnosis'
export { Figure } from './figure'
export { type DataFrame, frame } from './frame'
export { groupAdvantages } from './group-advantages'
export { type LiveRun, type LiveRunOptions, liveRun } from './live'
export { type Displayable, type DisplayHost, type MimeBundle, show } from './mime'
export { drawProgress, type ProgressLike } from './progress'
export { type RewardCurveOptions, type RunRecords, rewardCurve, type ValidationPoint } from './reward-curve'
export { signalShare } from './signal-share'
export { type RolloutTableOptions, type Row, rolloutTable, table } from './table'
