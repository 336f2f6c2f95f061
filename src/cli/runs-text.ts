// Runs as text: a table of all, one of them, several side by side. Names that others chose can't reach the terminal's controls.

import { changedSettings, differences } from '../runs/differences'
import { checkMeasure, courseOf, mainMeasure, summarize, values } from '../runs/run-summary'
import type { StoredReport, StoredRun } from '../runs/stored-run'

const BLOCKS = '▁▂▃▄▅▆▇█'
const SPARK_WIDTH = 40
/** What a run's page shows beside its measure, where it has it. */
const COURSES = ['reward', 'loss', 'grad_norm', 'entropy', 'completion_length_mean']
const COLUMNS = ['step', 'reward', 'reward_std', 'validation_score', 'loss', 'grad_norm', 'learning_rate', 'entropy', 'tokens']

export function listText(
  runs: readonly StoredRun[],
  storage: string,
  { measure, limit }: { measure: string | undefined; limit: number },
): string {
  if (runs.length === 0) return `No runs in ${plain(storage)}.\n`
  const shown = limit === 0 ? runs : runs.slice(0, limit)
  const head = ['RUN', 'STATE', 'MODEL', 'STARTED', 'STEPS', 'TIME', measure?.toUpperCase() ?? 'MEASURE', '', 'VALIDATION']
  const rows = shown.map((run) => {
    const told = summarize(run, measure)
    const went =
      told.first === null ? '' : `${measure === undefined ? `${told.measure} ` : ''}${number(told.first)} → ${number(told.last)}`
    const validated = told.best_validation === null ? '' : `best ${number(told.best_validation)} %`
    const spark = sparkline(values(run.steps, told.measure), 16)
    return [run.id, run.state, run.model, date(run.created), String(told.steps), duration(told.seconds), went, spark, validated]
  })
  const left = runs.length - shown.length
  return `${grid([head, ...rows])}${left > 0 ? `${left} more: --limit 0\n` : ''}`
}

export function showText(run: StoredRun, { measure, limit }: { measure: string | undefined; limit: number }): string {
  const told = summarize(run, measure)
  const { device, seed, arbor_nb: version } = run.environment
  const facts: [string, string][] = [
    ['state', run.reason === null ? run.state : `${run.state}: ${run.reason}`],
    ['model', run.model],
    ['started', `${date(run.created)}, ${told.steps} steps in ${duration(told.seconds)}`],
    ['made with', `arbor-nb ${version ?? '?'}, ${device ?? 'unknown device'}, seed ${seed ?? '?'}`],
    [
      'options',
      Object.entries(changedSettings(run))
        .map(([name, value]) => `${name} ${value}`)
        .join(', ') || 'all as by default',
    ],
    ...(run.validations().length > 0 ? [['validation', validationText(run)] as [string, string]] : []),
    ['folder', run.folder],
    ...run.reports().map((report): [string, string] => ['reported', reportText(report)]),
    ...run.checkpoints().map(({ name, step }): [string, string] => ['checkpoint', `${name} (step ${step})`]),
  ]
  const courses = [...new Set([told.measure, ...(measure === undefined ? COURSES : [])])].filter((name) =>
    values(run.steps, name).some((value) => value !== null),
  )
  const rows = thinned(run.steps, limit)
  const columns = [...new Set([...COLUMNS, told.measure])].filter((name) => rows.some((row) => (row[name] ?? null) !== null))
  const table = [columns, ...rows.map((row) => columns.map((name) => number(row[name] ?? null)))]
  return [
    `${plain(run.id)}\n\n`,
    grid(facts.map(([name, value]) => [`  ${name}`, value])),
    ...(courses.length > 0 ? ['\n', grid(courses.map((name) => [`  ${name}`, ...courseCells(run, name)]))] : []),
    ...(rows.length > 0 ? ['\n', grid(table.map(([first, ...rest]) => [`  ${first}`, ...rest]))] : []),
  ].join('')
}

export function compareText(runs: readonly StoredRun[], measure: string | undefined): string {
  const chosen = measure ?? mainMeasure(runs[0]!.kind)
  checkMeasure(runs, chosen)
  const row = (name: string, of: (run: StoredRun) => string) => [name, ...runs.map(of)]
  const part = (name: 'first' | 'last' | 'best') => (run: StoredRun) => number(courseOf(run, chosen)[name])
  const perStep = (run: StoredRun) => (run.steps.length === 0 ? '' : duration(summarize(run).seconds / run.steps.length))
  return grid([
    row('', ({ id }) => id),
    row('state', ({ state }) => state),
    ...Object.entries(differences(runs)).map(([name, given]) => [name, ...given.map((value) => value || '–')]),
    row('steps', ({ steps }) => String(steps.length)),
    row('a step', perStep),
    row(`${chosen}, first`, part('first')),
    row(`${chosen}, last`, part('last')),
    row(`${chosen}, best`, part('best')),
    row('', ({ steps }) => sparkline(values(steps, chosen), 24)),
    row('validation, best', (run) => number(summarize(run).best_validation)),
  ])
}

function courseCells(run: StoredRun, name: string): string[] {
  const { first, last, best } = courseOf(run, name)
  const went = `${number(first)} → ${number(last)}`
  return [sparkline(values(run.steps, name), SPARK_WIDTH), went, best === null ? '' : `best ${number(best)}`]
}

/** 41 % → 93 % (step 100), best 94 % (step 80) */
function validationText(run: StoredRun): string {
  const all = run.validations()
  const best = all.reduce((a, b) => (b.score > a.score ? b : a), all[0]!)
  const told = ({ step, score }: { step: number; score: number }) => `${number(score)} % (step ${step})`
  return `${told(all[0]!)} → ${told(all.at(-1)!)}, best ${told(best)}`
}

/** What to do to see it. */
function reportText({ folder, uploaded }: StoredReport): string {
  if (uploaded === null) return `tensorboard --logdir ${folder}`
  return uploaded ? `${folder} (uploaded)` : `wandb sync ${folder}`
}

/** Values as a row of blocks from their least to their greatest, at most `width`; a block is the mean of the steps it stands for. */
export function sparkline(all: readonly (number | null)[], width: number): string {
  const count = Math.min(width, all.length)
  const means = Array.from({ length: count }, (_, i) => {
    const part = all.slice(Math.floor((i * all.length) / count), Math.floor(((i + 1) * all.length) / count))
    const known = part.filter((value): value is number => value !== null)
    return known.length === 0 ? null : known.reduce((sum, value) => sum + value, 0) / known.length
  })
  const known = means.filter((value): value is number => value !== null)
  const [low, high] = [Math.min(...known), Math.max(...known)]
  const block = (value: number) => BLOCKS[high === low ? 3 : Math.min(7, Math.floor((8 * (value - low)) / (high - low)))]!
  return means.map((value) => (value === null ? ' ' : block(value))).join('')
}

/** At most `limit` rows, evenly, the first and the last among them. */
function thinned<T>(rows: readonly T[], limit: number): T[] {
  if (limit === 0 || rows.length <= limit) return [...rows]
  if (limit === 1) return [rows.at(-1)!]
  return Array.from({ length: limit }, (_, i) => rows[Math.round((i * (rows.length - 1)) / (limit - 1))]!)
}

/** Columns as wide as their widest cell. */
function grid(rows: readonly (readonly string[])[]): string {
  const cells = rows.map((row) => row.map(plain))
  const widths = Array.from({ length: Math.max(...cells.map((row) => row.length)) }, (_, i) =>
    Math.max(...cells.map((row) => [...(row[i] ?? '')].length)),
  )
  const padded = (text: string, width: number) => text + ' '.repeat(width - [...text].length)
  return cells
    .map(
      (row) =>
        `${row
          .map((text, i) => padded(text, widths[i]!))
          .join('  ')
          .trimEnd()}\n`,
    )
    .join('')
}

/** One line without control characters, the terminal's own commands among them. */
function plain(text: string): string {
  return text.replace(/\s+$/, '').replace(/[\p{Cc}\p{Cf}\u2028\u2029]/gu, '\uFFFD')
}

function number(value: number | null): string {
  if (value === null) return ''
  return String(Number.isInteger(value) ? value : Number(value.toPrecision(4))).replace('-', '−')
}

function duration(seconds: number): string {
  if (seconds < 100) return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`
  return seconds < 6000 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`
}

/** In local time, to the minute. */
function date(seconds: number): string {
  const local = new Date(seconds * 1000 - new Date(seconds * 1000).getTimezoneOffset() * 60_000)
  return local.toISOString().slice(0, 16).replace('T', ' ')
}
