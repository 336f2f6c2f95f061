// How a download shows itself: a bar that redraws itself on a terminal, a line every tenth elsewhere.

const WIDTH = 30

/** A callback for resolveModel's `progress`. Writes to stderr, so that stdout keeps the result alone. */
export function progressReporter(stream: NodeJS.WriteStream = process.stderr): (bytes: number, total: number) => void {
  let shown = -1
  let of = -1
  return (bytes, total) => {
    if (total !== of) [shown, of] = [-1, total] // another download
    const share = total > 0 ? Math.min(1, bytes / total) : 1
    const mark = stream.isTTY ? Math.floor(share * 1000) : Math.floor(share * 10)
    if (mark <= shown) return
    shown = mark
    const text = `${Math.floor(share * 100)
      .toFixed(0)
      .padStart(3)} %  ${formatBytes(bytes)} of ${formatBytes(total)}`
    if (!stream.isTTY) stream.write(`  ${text}\n`)
    else stream.write(`\r  ${bar(share)} ${text}\x1b[K${share === 1 ? '\n' : ''}`)
  }
}

/** A line on stderr, in the place of a bar that stopped half way. */
export function logLine(line: string): void {
  process.stderr.write(`${process.stderr.isTTY ? '\r\x1b[K' : ''}${line}\n`)
}

function bar(share: number): string {
  const full = Math.round(share * WIDTH)
  return '█'.repeat(full) + '░'.repeat(WIDTH - full)
}

/** 94.2 MB, 1.3 GB; decimal units, as downloads are listed. */
export function formatBytes(bytes: number): string {
  if (bytes < 1000) return `${bytes} B`
  const units = ['kB', 'MB', 'GB', 'TB']
  let value = bytes / 1000
  let unit = 0
  while (value >= 1000 && unit < units.length - 1) [value, unit] = [value / 1000, unit + 1]
  return `${value.toFixed(1)} ${units[unit]}`
}
