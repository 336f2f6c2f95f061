// How a pretraining run shows itself: a line that is drawn again on a terminal, one every half minute elsewhere, and a page with the loss.

import { join } from 'node:path'
import { lossCurve } from '../display/loss-curve'
import { stillImage } from '../display/still'
import { writeWhole } from '../engine/whole-file'
import type { Recipe } from '../pretrain/recipe'
import type { PretrainStep, RunFolder } from '../pretrain/run-folder'

/** Elsewhere than on a terminal. */
const QUIET_MS = 30_000
/** Steps whose mean tells the pace. */
const RECENT = 20

export interface PretrainReporter {
  onStep(step: PretrainStep): void
  onCheckpoint(steps: readonly PretrainStep[]): void
}

export function pretrainReporter(
  folder: RunFolder,
  recipe: Recipe,
  stream: NodeJS.WriteStream = process.stderr,
): PretrainReporter {
  const recent: PretrainStep[] = []
  let shown = Number.NEGATIVE_INFINITY
  return {
    onStep(step) {
      recent.push(step)
      if (recent.length > RECENT) recent.shift()
      const last = step.step === recipe.steps
      if (!stream.isTTY && !last && performance.now() - shown < QUIET_MS) return
      shown = performance.now()
      const line = progressLine(recent, recipe)
      stream.write(stream.isTTY ? `\r${line}\x1b[K${last ? '\n' : ''}` : `${line}\n`)
    },
    onCheckpoint(steps) {
      const figure = lossCurve(steps, `Pretraining loss, ${recipe.size}, ${recipe.mix}, seed ${recipe.seed}`)
      const picture = stillImage(figure)
      writeWhole(join(folder.path, 'loss.svg'), picture)
      writeWhole(join(folder.path, 'loss.html'), page(figure.summary, picture, steps))
    },
  }
}

/** step 120/1200  loss 1.234  24,100 tokens/s  left 1 h 02 min */
export function progressLine(recent: readonly PretrainStep[], { steps }: Recipe): string {
  const seconds = recent.reduce((sum, step) => sum + step.seconds, 0)
  const tokens = recent.reduce((sum, step) => sum + step.tokensUnshared, 0)
  const { step, loss, heldOutLoss } = recent.at(-1)!
  const left = ((steps - step) * seconds) / recent.length
  const held = heldOutLoss === undefined ? '' : `  held-out ${heldOutLoss.toFixed(4)}`
  const pace = Math.round(tokens / seconds).toLocaleString('en-US')
  return `step ${step}/${steps}  loss ${loss.toFixed(4)}${held}  ${pace} tokens/s  left ${duration(left)}`
}

function duration(seconds: number): string {
  if (seconds < 60) return `${Math.ceil(seconds)} s`
  const minutes = Math.ceil(seconds / 60)
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, '0')} min`
}

/** A page that opens anywhere: the picture is in it. */
function page(summary: string, picture: string, steps: readonly PretrainStep[]): string {
  const rows = steps.filter(({ heldOutLoss }) => heldOutLoss !== undefined)
  const cells = (step: PretrainStep) =>
    [step.step, step.loss.toFixed(4), step.heldOutLoss!.toFixed(4), step.learningRate.toExponential(2), step.gradNorm.toFixed(3)]
      .map((cell) => `<td>${cell}</td>`)
      .join('')
  return `<!doctype html>
<meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>${summary}</title>
<style>
  :root { color-scheme: light dark }
  body { font: 14px system-ui, sans-serif; max-width: 860px; margin: 2em auto; padding: 0 1em }
  svg { max-width: 100%; height: auto }
  td, th { padding: .15em 1em; text-align: right; font-variant-numeric: tabular-nums }
</style>
${picture}
<p>${summary}</p>
<table><tr><th>step</th><th>loss</th><th>held-out</th><th>rate</th><th>gradient norm</th></tr>
${rows.map((step) => `<tr>${cells(step)}</tr>`).join('\n')}
</table>
`
}
