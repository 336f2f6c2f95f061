// Colours for the lines of a traceback, as notebooks draw them: what went wrong in red, the marked line bold, the frames grey.

const RED = '\u001b[31m'
const BOLD = '\u001b[1m'
const GREY = '\u001b[90m'
const END = '\u001b[39m\u001b[22m'

/** The same lines with ANSI colours. */
export function colourTraceback(lines: readonly string[]): string[] {
  return lines.map((line, index) => {
    if (index === 0 || line.startsWith('Caused by:')) return paint(line, RED)
    if (line.startsWith('>')) return paint(line, BOLD)
    if (/^\s+\|\s*\^/.test(line)) return paint(line, RED)
    return /^\s+at /.test(line) ? paint(line, GREY) : line
  })
}

function paint(text: string, colour: string): string {
  return `${colour}${text}${END}`
}
