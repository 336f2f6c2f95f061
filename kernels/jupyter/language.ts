// What an editor asks of the language: how a name may go on, what it is, whether a cell is complete.

import type { Compiler } from './compiler'
import { typescript } from './typescript'

type QuickInfo = import('typescript').QuickInfo
type DisplayPart = import('typescript').SymbolDisplayPart
type Symbol = import('typescript').Symbol
type TypeChecker = import('typescript').TypeChecker

/** Offsets count UTF-16 units. */
export interface LanguageQuestion {
  readonly what: 'complete' | 'inspect' | 'isComplete'
  readonly code: string
  readonly offset: number
}

export interface CompletionAnswer {
  readonly what: 'complete'
  readonly start: number
  readonly end: number
  readonly matches: readonly { readonly text: string; readonly kind: string; readonly signature: string }[]
}

export interface InspectionAnswer {
  readonly what: 'inspect'
  readonly found: { readonly signature: string; readonly documentation: string } | null
}

export interface IsCompleteAnswer {
  readonly what: 'isComplete'
  readonly status: 'complete' | 'incomplete' | 'invalid'
  readonly indent: string
}

export type Answer = CompletionAnswer | InspectionAnswer | IsCompleteAnswer

/** Types are told for as many completions; each costs the checker some work. */
const WITH_TYPES = 60

export function answer({ what, code, offset }: LanguageQuestion, compiler: Compiler, declarations: string): Answer {
  if (what === 'complete') return complete(code, offset, { compiler, declarations })
  if (what === 'inspect') return { what, found: inspect(code, offset, { compiler, declarations }) }
  return isComplete(code)
}

interface Context {
  readonly compiler: Compiler
  readonly declarations: string
}

function complete(code: string, offset: number, { compiler, declarations }: Context): CompletionAnswer {
  const { completions, checker } = compiler.complete(declarations, code, offset)
  const entries = new Map(completions.original?.entries.map((entry) => [entry.name, entry]))
  const prefix = code.slice(completions.start, offset)
  const exact = completions.candidates.filter((text) => text.startsWith(prefix))
  // What only resembles the word helps where nothing goes on from it.
  const matches = (exact.length > 0 ? exact : completions.candidates).map((text, index) => {
    const entry = entries.get(text)
    const symbol = index < WITH_TYPES ? meant(entry?.symbol, checker) : undefined
    const place = symbol?.valueDeclaration ?? symbol?.declarations?.[0]
    const signature = symbol && place && checker ? checker.typeToString(checker.getTypeOfSymbolAtLocation(symbol, place)) : ''
    return { text, kind: (entry?.kind === 'alias' ? kindOf(symbol) : undefined) ?? entry?.kind ?? '', signature }
  })
  return { what: 'complete', start: completions.start, end: completions.end, matches }
}

/** What a name that a module passes on stands for. */
function meant(symbol: Symbol | undefined, checker: TypeChecker | null): Symbol | undefined {
  const isAlias = symbol !== undefined && (symbol.flags & typescript().SymbolFlags.Alias) !== 0
  return isAlias && checker ? checker.getAliasedSymbol(symbol) : symbol
}

/** In the words that an editor has pictures for. */
function kindOf(symbol: Symbol | undefined): string | undefined {
  const flags = typescript().SymbolFlags
  const kinds: [number, string][] = [
    [flags.Class, 'class'],
    [flags.Function, 'function'],
    [flags.Module, 'module'],
    [flags.Variable, 'const'],
    [flags.Interface, 'interface'],
    [flags.TypeAlias, 'type'],
  ]
  return kinds.find(([flag]) => ((symbol?.flags ?? 0) & flag) !== 0)?.[1]
}

/** The name at the cursor or just before it; inside the parentheses of a call, the function called. */
function inspect(code: string, offset: number, { compiler, declarations }: Context): InspectionAnswer['found'] {
  for (const place of [offset, offset - 1, calleeAt(code, offset)]) {
    if (place === null || place < 0 || !/[\w$\u0080-\uffff]/.test(code[place] ?? '')) continue
    const info = compiler.inspect(declarations, code, place)
    // A literal has no kind; the function that it is given to says more.
    if (info && info.kind !== '') return told(info)
  }
  return null
}

function told({ displayParts = [], documentation = [], tags = [] }: QuickInfo): NonNullable<InspectionAnswer['found']> {
  const text = (parts: readonly DisplayPart[]) => parts.map((part) => part.text).join('')
  const lines = tags.map(({ name, text: parts = [] }) => `@${name} ${text(parts)}`.trimEnd())
  return {
    signature: text(displayParts),
    documentation: [text(documentation), ...lines].filter((line) => line !== '').join('\n'),
  }
}

/** Offset of the last character of the function's name in the innermost call around `offset`, or null. */
function calleeAt(code: string, offset: number): number | null {
  const ts = typescript()
  const source = ts.createSourceFile('cell.ts', code, ts.ScriptTarget.ES2022)
  let callee: number | null = null
  const visit = (node: import('typescript').Node): void => {
    if (offset < node.getFullStart() || offset > node.getEnd()) return
    if ((ts.isCallExpression(node) || ts.isNewExpression(node)) && offset > node.expression.getEnd())
      callee = node.expression.getEnd() - 1
    ts.forEachChild(node, visit)
  }
  visit(source)
  return callee
}

/** Faults that more text can mend, wherever they are told: an open comment, template or string over several lines. */
const OPEN = new Set([1010, 1160])

function isComplete(code: string): IsCompleteAnswer {
  const ts = typescript()
  const source = ts.createSourceFile('cell.ts', code, ts.ScriptTarget.ES2022) as import('typescript').SourceFile & {
    parseDiagnostics: readonly import('typescript').DiagnosticWithLocation[]
  }
  const faults = source.parseDiagnostics
  if (faults.length === 0) return { what: 'isComplete', status: 'complete', indent: '' }
  const end = code.trimEnd().length
  // The parser stops at the first fault that it can't read past; one at the very end waits for more.
  const open = faults.some(({ code: number }) => OPEN.has(number)) || faults[0]!.start >= end
  return open
    ? { what: 'isComplete', status: 'incomplete', indent: indentAfter(code) }
    : { what: 'isComplete', status: 'invalid', indent: '' }
}

function indentAfter(code: string): string {
  const line = code.trimEnd().split('\n').at(-1) ?? ''
  const margin = /^\s*/.exec(line)![0]
  return /[{([]$/.test(line) ? `${margin}  ` : margin
}
