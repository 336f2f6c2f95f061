// Numbers, times and names as a person reads them.

/** −0.66, 0.50, 1,204; never a hyphen for a minus. */
export function number(value: number | null | undefined, digits = 2): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return '–'
  return value.toLocaleString('en', { minimumFractionDigits: digits, maximumFractionDigits: digits }).replace('-', '−')
}

/** As short as four digits allow: 0.0003 → 3e−4. */
export function short(value: number): string {
  if (Number.isInteger(value)) return number(value, 0)
  const size = Math.abs(value)
  const small = size < 0.001 || size >= 1e6
  const text = small ? value.toExponential(2).replace(/\.?0+e/, 'e') : String(Number(value.toPrecision(4)))
  return text.replace(/-/g, '−')
}

/** +0.71, −1.20 */
export function signed(value: number): string {
  return `${value < 0 ? '−' : '+'}${Math.abs(value).toFixed(2)}`
}

/** 612 MB, 1.45 GB */
export function byteSize(bytes: number): string {
  if (bytes < 1e9) return `${Math.round(bytes / 1e6)} MB`
  return `${(bytes / 1e9).toFixed(bytes < 1e10 ? 2 : 1)} GB`
}

/** 20 ms, 0.3 s, 42 s, 3 min, 2.5 h */
export function duration(seconds: number): string {
  if (seconds < 0.095) return `${Math.round(1000 * seconds)} ms`
  if (seconds < 10) return `${seconds.toFixed(1)} s`
  if (seconds < 90) return `${Math.round(seconds)} s`
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`
  return `${(seconds / 3600).toFixed(1)} h`
}

/** 14:05, or with the day when it isn't today's. `seconds` is unix time. */
export function clock(seconds: number): string {
  const date = new Date(seconds * 1000)
  const time = date.toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' })
  return date.toDateString() === new Date().toDateString() ? time : `${date.toLocaleDateString()}, ${time}`
}

/** The name within `grpo:model:name:20250101`. */
export function jobName(id: string): string {
  return id.split(':')[2] ?? id
}

/** One line, at most `length` characters. */
export function shorten(text: string, length: number): string {
  const line = text.replace(/\s+/g, ' ').trim()
  return line.length > length ? `${line.slice(0, length - 1)}…` : line
}

export function plural(count: number, one: string, many = `${one}s`): string {
  return `${number(count, 0)} ${count === 1 ? one : many}`
}
