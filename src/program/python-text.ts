// Text as Python prints it. Prompts must equal DSPy's byte for byte, so values are shown the way `str`, `repr` and `json.dumps` show them.

const WHITESPACE = '[\\t-\\r\\x1c-\\x20\\x85\\p{Z}]'
const STRIP = new RegExp(`^${WHITESPACE}+|${WHITESPACE}+$`, 'gu')
const STRIP_END = new RegExp(`${WHITESPACE}+$`, 'u')

/** `str.strip()`: Unicode white space, the separators U+001C to U+001F and U+0085 included, which `trim` keeps. */
export function strip(text: string): string {
  return text.replace(STRIP, '')
}

/** `str.rstrip()`. */
export function stripEnd(text: string): string {
  return text.replace(STRIP_END, '')
}

/** `str.splitlines()`: also splits on vertical tab, form feed, file separators, NEL and the Unicode separators. */
export function splitLines(text: string): string[] {
  const lines = text.split(/\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]/)
  if (lines.at(-1) === '') lines.pop() // a final line end opens no new line
  return lines
}

/** A whole number that is a float in Python: it prints `3.0`. */
export class PyFloat {
  readonly value: number
  constructor(value: number) {
    this.value = value
  }
}

/** `str(value)` of a JSON-like value: `True`, `None`, `1e-07`; lists and dictionaries as their repr. */
export function pyStr(value: unknown): string {
  return typeof value === 'string' ? value : pyRepr(value)
}

/** `repr(value)` of a JSON-like value. */
export function pyRepr(value: unknown): string {
  if (value === null || value === undefined) return 'None'
  if (typeof value === 'boolean') return value ? 'True' : 'False'
  if (typeof value === 'number' || typeof value === 'bigint') return pyNumber(value)
  if (typeof value === 'string') return reprString(value)
  if (Array.isArray(value)) return `[${value.map(pyRepr).join(', ')}]`
  if (value instanceof PyFloat) return pyFloat(value.value)
  if (typeof value === 'object') {
    const pairs = Object.entries(value).map(([key, item]) => `${reprString(key)}: ${pyRepr(item)}`)
    return `{${pairs.join(', ')}}`
  }
  return String(value)
}

function reprString(text: string): string {
  const quote = text.includes("'") && !text.includes('"') ? '"' : "'"
  const body = text.replace(/[\\\n\r\t]|['"]|[^\x20-\x7e]/gu, (char) => {
    if (char === quote || char === '\\') return `\\${char}`
    if (char === '\n') return '\\n'
    if (char === '\r') return '\\r'
    if (char === '\t') return '\\t'
    if (!/[\p{C}\p{Z}]/u.test(char)) return char
    const code = char.codePointAt(0)!
    if (code < 0x100) return `\\x${code.toString(16).padStart(2, '0')}`
    return code < 0x10000 ? `\\u${code.toString(16).padStart(4, '0')}` : `\\U${code.toString(16).padStart(8, '0')}`
  })
  return `${quote}${body}${quote}`
}

/** `repr` of a number; a whole number below 2^53 counts as an int (JavaScript doesn't tell 3 from 3.0). */
export function pyNumber(value: number | bigint): string {
  if (typeof value === 'bigint' || Number.isSafeInteger(value)) return String(value === 0 ? 0 : value)
  if (Number.isNaN(value)) return 'nan'
  if (!Number.isFinite(value)) return value > 0 ? 'inf' : '-inf'
  return pyFloat(value)
}

/** `repr` of a finite float: exponents below 1e-4 and from 1e16 on, two digits at least; `3.0` keeps its point. */
export function pyFloat(value: number): string {
  const [mantissa, exponentText] = value.toExponential().split('e') as [string, string]
  const exponent = Number(exponentText)
  if (exponent < -4 || exponent >= 16) {
    return `${mantissa}e${exponent < 0 ? '-' : '+'}${String(Math.abs(exponent)).padStart(2, '0')}`
  }
  const plain = exponent < 0 ? value.toFixed(mantissa.replace(/[-.]/g, '').length - 1 - exponent) : String(value)
  return plain.includes('.') ? plain : `${plain}.0`
}

/** `json.dumps(value, ensure_ascii=False)`: separators `", "` and `": "`, non-ASCII kept; `indent` in spaces opens a line for every item. */
export function jsonDumps(value: unknown, indent = 0): string {
  return dumpJson(value, indent, '\n')
}

/** `line` starts a line at the depth of `value`. */
function dumpJson(value: unknown, indent: number, line: string): string {
  if (value === null || value === undefined) return 'null'
  if (typeof value === 'boolean') return String(value)
  if (typeof value === 'string') return jsonString(value)
  if (typeof value === 'bigint' || (typeof value === 'number' && Number.isFinite(value))) return pyNumber(value)
  if (typeof value === 'number') return Number.isNaN(value) ? 'NaN' : value > 0 ? 'Infinity' : '-Infinity'
  if (value instanceof PyFloat) return pyFloat(value.value)
  const inner = line + ' '.repeat(indent)
  const join = (items: readonly string[], open: string, close: string) => {
    if (items.length === 0 || indent === 0) return `${open}${items.join(', ')}${close}`
    return `${open}${inner}${items.join(`,${inner}`)}${line}${close}`
  }
  const dump = (item: unknown) => dumpJson(item, indent, inner)
  if (Array.isArray(value)) return join(value.map(dump), '[', ']')
  return join(
    Object.entries(value).map(([key, item]) => `${jsonString(key)}: ${dump(item)}`),
    '{',
    '}',
  )
}

function jsonString(text: string): string {
  // JSON.stringify escapes lone surrogates, which Python leaves alone; nothing else differs.
  return JSON.stringify(text)
}

/** `inspect.cleandoc`: the common margin of all lines but the first goes, blank lines at both ends go. */
export function cleanDoc(text: string): string {
  const lines = expandTabs(text).split('\n')
  const indents = lines.slice(1).flatMap((line) => (line.trim() === '' ? [] : [line.length - line.trimStart().length]))
  const margin = Math.min(...indents)
  const cut = lines.map((line, i) => (i === 0 ? line.trimStart() : Number.isFinite(margin) ? line.slice(margin) : line))
  while (cut.at(-1) === '') cut.pop()
  while (cut[0] === '') cut.shift()
  return cut.join('\n')
}

/** `textwrap.dedent`: white-space-only lines become empty, then the margin common to all other lines goes. */
export function dedent(text: string): string {
  const lines = text.split('\n').map((line) => line.replace(/^[ \t]+$/, ''))
  const margins = lines.filter((line) => line !== '').map((line) => /^[ \t]*/.exec(line)![0])
  let margin = margins[0] ?? ''
  for (const other of margins) while (!other.startsWith(margin)) margin = margin.slice(0, -1)
  return lines.map((line) => line.slice(margin.length)).join('\n')
}

function expandTabs(text: string): string {
  let column = 0
  let expanded = ''
  for (const char of text) {
    const added = char === '\t' ? ' '.repeat(8 - (column % 8)) : char
    column = char === '\n' || char === '\r' ? 0 : column + added.length
    expanded += added
  }
  return expanded
}

/** `round(value, digits)`: the nearest decimal of the exact binary value; only exact ties go to the even digit. */
export function pyRound(value: number, digits: number): number {
  const rounded = Number(value.toFixed(digits)) // toFixed is exact, but sends ties up
  const isTie = Number.isInteger(value * 2 ** (digits + 1)) && Math.abs((value * 10 ** digits) % 1) === 0.5
  if (!isTie) return rounded
  const below = Math.floor(value * 10 ** digits)
  return (below % 2 === 0 ? below : below + 1) / 10 ** digits
}
