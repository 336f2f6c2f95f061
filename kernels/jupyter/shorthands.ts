// `{ lm }` → `{ lm: lm }` before the converter sees a cell: it rewrites names of earlier cells, but overlooks them in shorthand properties.

import { typescript } from './typescript'

export interface Expanded {
  readonly code: string
  /** The column (from 1) in the code as written, of a column in the expanded code. */
  readonly writtenColumn: (line: number, column: number) => number
}

interface Insertion {
  readonly line: number // from 1
  readonly column: number // from 1, in the written code: where the text went in
  readonly text: string
}

/** Expands every shorthand property of `code`; lines stay, columns behind an expansion move and are led back by `writtenColumn`. */
export function expandShorthands(code: string): Expanded {
  const ts = typescript()
  const source = ts.createSourceFile('cell.ts', code, ts.ScriptTarget.ES2022)
  const insertions: (Insertion & { offset: number })[] = []
  const visit = (node: import('typescript').Node): void => {
    if (ts.isShorthandPropertyAssignment(node)) {
      const offset = node.name.getEnd()
      const { line, character } = source.getLineAndCharacterOfPosition(offset)
      insertions.push({ offset, line: line + 1, column: character + 1, text: `: ${node.name.text}` })
    }
    ts.forEachChild(node, visit)
  }
  visit(source)
  let out = ''
  let from = 0
  for (const { offset, text } of insertions) {
    out += code.slice(from, offset) + text
    from = offset
  }
  return { code: out + code.slice(from), writtenColumn: (line, column) => back(insertions, line, column) }
}

/** A place inside inserted text is led to the name it repeats. */
function back(insertions: readonly Insertion[], line: number, column: number): number {
  let shift = 0
  for (const { line: row, column: at, text } of insertions) {
    if (row !== line || column - shift < at) continue
    if (column - shift < at + text.length) return at - (text.length - ': '.length)
    shift += text.length
  }
  return column - shift
}
