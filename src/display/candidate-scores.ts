// The programs that an optimizer has tried: what each scored, and how the best got better.

import { Figure, type Trace } from './figure'
import { escapeHtml, shorten } from './mime'
import { axis, BLUE, baseLayout, GREEN, ORANGE, stepAxis } from './style'

/** A scored program: the shape of optimize/candidates.ts' CandidateRecord. */
export interface ScoredCandidate {
  /** From 0, in the order of scoring. */
  readonly index: number
  readonly label: string
  /** Percent. */
  readonly score: number
  /** On the whole validation set; false: on a minibatch. */
  readonly full: boolean
  /** The best full score so far; null before the first. */
  readonly best: number | null
  readonly predictors: readonly { readonly name: string; readonly instructions: string; readonly demos: number }[]
  readonly spent?: {
    readonly lmCalls: number
    readonly promptTokens: number
    readonly completionTokens: number
    readonly seconds: number
  }
}

export interface CandidateScoresOptions {
  readonly title?: string
  /** Candidates to come in all: the axis ends there. */
  readonly total?: number
}

/** Characters of an instruction in the hover text, and of one line of it. */
const HOVER_TEXT = 150
const HOVER_LINE = 56
const CLEAR = 'rgba(0,0,0,0)'

/**
 * Score by candidate: filled points on the whole validation set, hollow ones on minibatches, the best so far as a line.
 * @example plot.candidateScores(optimizer.search.candidates)
 */
export function candidateScores(candidates: readonly ScoredCandidate[], options: CandidateScoresOptions = {}): Figure {
  const { title = 'Candidate scores', total = 0 } = options
  const inOrder = [...candidates].sort((a, b) => a.index - b.index)
  const best = bestCandidate(inOrder)
  const [full, parts] = [inOrder.filter((one) => one.full), inOrder.filter((one) => !one.full)]
  const data: Trace[] = [
    ...bestLine(inOrder),
    ...points('on a minibatch', parts, { size: 9, color: CLEAR, line: { width: 1.8, color: BLUE } }),
    ...points(parts.length > 0 ? 'on all examples' : 'score', full, { size: 11, color: BLUE }),
    ...(best ? points('best', [best], { size: 15, symbol: 'diamond', color: ORANGE }) : []),
  ]
  const layout = baseLayout(title, 340)
  layout.showlegend = true
  layout.hovermode = 'closest'
  layout.hoverlabel = { align: 'left' }
  layout.xaxis = {
    ...stepAxis([1, Math.max(total, 1 + (inOrder.at(-1)?.index ?? 0))]),
    title: { text: 'candidate', standoff: 8 },
  }
  layout.yaxis = axis('score', { range: scoreRange(inOrder.map(({ score }) => score)), ticksuffix: ' %' })
  return new Figure(data, layout, summary(title, inOrder, best))
}

/** The first of the highest full scores, or of the minibatch scores where there is no full one. */
export function bestCandidate<C extends ScoredCandidate>(candidates: readonly C[]): C | null {
  const full = candidates.filter((one) => one.full)
  return (full.length > 0 ? full : candidates).reduce<C | null>(
    (best, one) => (best && best.score >= one.score ? best : one),
    null,
  )
}

/** A step at each candidate that was better than all before, on to the last one. */
function bestLine(candidates: readonly ScoredCandidate[]): Trace[] {
  const known = candidates.filter((one) => one.best !== null)
  if (known.length === 0) return []
  const corners = known.flatMap(({ index, best }, i) => {
    const before = known[i - 1]?.best
    if (before === best) return []
    return before === undefined
      ? [[index + 1, best]]
      : [
          [index + 1, before],
          [index + 1, best],
        ] // along, then up
  })
  const line = [...corners, [candidates.at(-1)!.index + 1, known.at(-1)!.best]]
  return [
    {
      type: 'scatter',
      mode: 'lines',
      name: 'best so far',
      x: line.map(([x]) => x!),
      y: line.map(([, y]) => y!),
      line: { color: GREEN, width: 2 },
      hoverinfo: 'skip',
    },
  ]
}

function points(name: string, candidates: readonly ScoredCandidate[], marker: Trace['marker']): Trace[] {
  if (candidates.length === 0) return []
  return [
    {
      type: 'scatter',
      mode: 'markers',
      name,
      x: candidates.map(({ index }) => index + 1),
      y: candidates.map(({ score }) => score),
      marker,
      text: candidates.map(hoverText),
      hovertemplate: '%{text}<extra></extra>',
      cliponaxis: false,
    },
  ]
}

/** 'seed 3: 72.5 %', then a line a predictor: its demos and the first words of its instruction. */
function hoverText({ label, score, full, predictors }: ScoredCandidate): string {
  const parts = predictors.map(({ name, instructions, demos }) => {
    const owner = predictors.length > 1 ? `${name}: ` : ''
    return `${owner}${demos} demo${demos === 1 ? '' : 's'} · ${shorten(instructions, HOVER_TEXT)}`
  })
  const head = `${label}: ${score.toFixed(1)} %${full ? '' : ' (minibatch)'}`
  return [`<b>${escapeHtml(head)}</b>`, ...parts.flatMap(wrapped).map(escapeHtml)].join('<br>')
}

function wrapped(text: string): string[] {
  const lines: string[] = []
  for (const word of text.split(' ')) {
    const line = lines.at(-1)
    if (line === undefined || line.length + word.length >= HOVER_LINE) lines.push(word)
    else lines[lines.length - 1] = `${line} ${word}`
  }
  return lines
}

/** Tens around the scores, within 0 to 100 where the scores are. */
function scoreRange(scores: readonly number[]): [number, number] {
  if (scores.length === 0) return [0, 100]
  const low = Math.floor((Math.min(...scores) - 4) / 10) * 10
  const high = Math.ceil((Math.max(...scores) + 4) / 10) * 10
  return [Math.max(low, Math.min(0, ...scores)), Math.min(high, Math.max(100, ...scores) + 3)]
}

function summary(title: string, candidates: readonly ScoredCandidate[], best: ScoredCandidate | null): string {
  if (!best) return `${title}: no candidate yet`
  const first = candidates[0]!
  if (candidates.length === 1) return `${title}: ${best.score.toFixed(1)} % (${best.label})`
  return `${title}: ${candidates.length} candidates, best ${best.score.toFixed(1)} % (${best.label}), the first ${first.score.toFixed(1)} %`
}
