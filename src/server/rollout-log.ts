// The rollouts of one step, out of a log that may hold thousands: rollouts.jsonl is read on from where the last question ended,
// and only where each step's lines lie is remembered.

import { closeSync, existsSync, fstatSync, openSync, readSync } from 'node:fs'
import { join } from 'node:path'
import { type RolloutGroup, RolloutGroupSchema } from '../protocol'

const READ_BYTES = 1 << 20
const LINE_BREAK = 10
/** How rolloutLines begins every line. */
const STEP = /^\{"step":(\d+),/

/** Where a step's lines begin, and where they end. */
interface Place {
  readonly start: number
  end: number
}

export class RolloutLog {
  private readonly path: string
  private places = new Map<number, Place>()
  private known = 0 // bytes that were looked at: whole lines
  private inode = 0

  /** @param folder of a run */
  constructor(folder: string) {
    this.path = join(folder, 'rollouts.jsonl')
  }

  /** The groups of `step`; none when it isn't logged. */
  groups(step: number): RolloutGroup[] {
    if (!existsSync(this.path)) return []
    const file = openSync(this.path, 'r')
    try {
      this.readOn(file)
      const place = this.places.get(step)
      if (!place) return []
      const text = readAt(file, place.start, place.end - place.start).toString('utf8')
      const lines = text.split('\n').filter((line) => line !== '')
      return lines.map((line) => RolloutGroupSchema.parse(JSON.parse(line)))
    } finally {
      closeSync(file)
    }
  }

  /** Notes where the lines lie that were written since. A file that was written anew (a resumed run cuts it) is read anew. */
  private readOn(file: number): void {
    const { size, ino } = fstatSync(file)
    if (ino !== this.inode || size < this.known) {
      this.places = new Map()
      this.known = 0
      this.inode = ino
    }
    while (this.known < size) {
      const bytes = this.wholeLines(file, size)
      if (bytes.length === 0) return // a line that is still being written
      for (let from = 0; from < bytes.length; ) {
        const end = bytes.indexOf(LINE_BREAK, from) + 1
        this.note(bytes.toString('latin1', from, Math.min(end, from + 40)), this.known + from, this.known + end)
        from = end
      }
      this.known += bytes.length
    }
  }

  private note(head: string, start: number, end: number): void {
    const step = Number(STEP.exec(head)?.[1] ?? Number.NaN)
    const place = this.places.get(step)
    if (place) place.end = end
    else this.places.set(step, { start, end })
  }

  /** The next bytes up to a line break; more at a time where one line is longer than a read. */
  private wholeLines(file: number, size: number): Buffer {
    for (let length = READ_BYTES; ; length *= 2) {
      const bytes = readAt(file, this.known, Math.min(length, size - this.known))
      const end = bytes.lastIndexOf(LINE_BREAK) + 1
      if (end > 0 || this.known + length >= size) return bytes.subarray(0, end)
    }
  }
}

function readAt(file: number, start: number, length: number): Buffer {
  const bytes = Buffer.alloc(length)
  return bytes.subarray(0, readSync(file, bytes, 0, length, start))
}
