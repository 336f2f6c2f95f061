// How the server is: speed, how busy its engine is, memory, what is in flight; each with its last minutes.

import type { Health } from '../../protocol'
import { type Child, type Element_, h } from './dom.js'
import { byteSize, number, plural } from './format.js'
import { BLUE, GREEN, GREY, ORANGE } from './palette.js'
import type { Range } from './scale.js'
import { sparkline } from './sparkline.js'
import { state } from './state.js'

/** A rate is taken over this many seconds: a step's rollouts come in bursts. */
const WINDOW_SECONDS = 8

/** What `of` grew by, per second, between each answer and the oldest within the window before it. */
export function rates(answers: readonly Health[], of: (health: Health) => number): number[] {
  return answers.flatMap((now, i) => {
    const before = answers.find(({ time }, j) => j < i && now.time - time <= WINDOW_SECONDS)
    return before && now.time > before.time ? [Math.max(0, (of(now) - of(before)) / (now.time - before.time))] : []
  })
}

export function vitals(): Child {
  const answers = state.health
  const last = answers.at(-1)
  if (!last) return null
  return h(
    'section',
    { key: 'vitals', class: 'vitals', 'aria-label': 'The server now' },
    speed(answers),
    busy(answers),
    memory(answers, last),
    flight(answers, last),
  )
}

function speed(answers: readonly Health[]): Element_ {
  const sampled = rates(answers, ({ work }) => work.sampled_tokens)
  const newest = (of: (health: Health) => number) => number(rates(answers, of).at(-1) ?? 0, 0)
  const note = `sampled; prompts ${newest(({ work }) => work.prompt_tokens)}, training ${newest(({ work }) => work.trained_tokens)}`
  return tile('Tokens a second', { value: number(sampled.at(-1) ?? 0, 0), note, values: sampled, colour: BLUE })
}

function busy(answers: readonly Health[]): Element_ {
  const shares = rates(answers, (health) => health.busy_seconds).map((share) => Math.min(100, 100 * share))
  const note = `of the last ${WINDOW_SECONDS} seconds`
  return tile('Engine busy', {
    value: `${number(shares.at(-1) ?? 0, 0)} %`,
    note,
    values: shares,
    colour: GREEN,
    range: [0, 100],
  })
}

/** Of the device where it has its own, else of the process. */
function memory(answers: readonly Health[], { memory: now }: Health): Element_ {
  const taken = ({ memory: { device, process_bytes } }: Health) =>
    device ? device.total_bytes - device.free_bytes : process_bytes
  const values = answers.map(taken)
  const machine = `machine ${byteSize(now.machine_free_bytes)} free`
  const note = now.device
    ? `of ${byteSize(now.device.total_bytes)}; server ${byteSize(now.process_bytes)}`
    : `peak ${byteSize(now.process_peak_bytes)}; ${machine}`
  const range: Range = [0, now.device?.total_bytes ?? Math.max(...values) * 1.15]
  return tile(now.device ? 'Device memory' : 'Memory', {
    value: byteSize(values.at(-1) ?? 0),
    note,
    values,
    colour: ORANGE,
    range,
  })
}

function flight(answers: readonly Health[], { queue }: Health): Element_ {
  const running = answers.map((one) => one.queue.running)
  const note = queue.waiting === 0 ? 'completions, none waits' : `completions, and ${plural(queue.waiting, 'waits', 'wait')}`
  return tile('In flight', {
    value: number(queue.running, 0),
    note,
    values: running,
    colour: GREY,
    range: [0, Math.max(4, ...running)],
  })
}

interface Tile {
  readonly value: string
  readonly note: string
  readonly values: readonly number[]
  readonly colour: string
  readonly range?: Range
}

function tile(name: string, { value, note, values, ...look }: Tile): Element_ {
  return h(
    'div',
    { class: 'tile' },
    h('h2', null, name),
    h('div', { class: 'figure' }, h('strong', null, value), sparkline(values, look)),
    h('p', { class: 'muted' }, note),
  )
}
