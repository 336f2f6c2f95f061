// The documentation of a name. The program reads the libraries without their comments, which saves a sixth of the kernel's start;
// the file that declares a name is read again, with comments, when somebody asks.

import type { TypeScript } from './typescript'

type Node = import('typescript').Node
type SourceFile = import('typescript').SourceFile

export interface Documentation {
  readonly text: string
  readonly tags: readonly { readonly name: string; readonly text: string }[]
}

const read = new Map<string, SourceFile>()

/** What the comments before `symbol`'s declarations say. */
export function documentationOf(ts: TypeScript, symbol: import('typescript').Symbol): Documentation {
  const documents = (symbol.declarations ?? []).flatMap((declaration) => {
    const node = sameNode(ts, withComments(ts, declaration.getSourceFile()), declaration)
    return node ? ts.getJSDocCommentsAndTags(node).filter(ts.isJSDoc) : []
  })
  const texts = documents.map(({ comment }) => ts.getTextOfJSDocComment(comment) ?? '')
  const tags = documents
    .flatMap((document) => document.tags ?? [])
    .map((tag) => {
      const parameter = ts.isJSDocParameterTag(tag) ? `${tag.name.getText()} ` : ''
      return { name: tag.tagName.text, text: `${parameter}${ts.getTextOfJSDocComment(tag.comment) ?? ''}`.trim() }
    })
  // Overloads often repeat theirs.
  return { text: [...new Set(texts)].filter((text) => text !== '').join('\n'), tags }
}

function withComments(ts: TypeScript, file: SourceFile): SourceFile {
  const known = read.get(file.fileName)
  if (known?.text === file.text) return known
  const { JSDocParsingMode, ScriptTarget } = ts
  const options = { languageVersion: ScriptTarget.ES2022, jsDocParsingMode: JSDocParsingMode.ParseAll }
  const fresh = ts.createSourceFile(file.fileName, file.text, options, true)
  read.set(file.fileName, fresh)
  return fresh
}

/** The node of `file` at the place of `wanted`, which is of the same text read otherwise. */
function sameNode(ts: TypeScript, file: SourceFile, wanted: Node): Node | null {
  const visit = (node: Node): Node | null => {
    if (node.kind === wanted.kind && node.pos === wanted.pos && node.end === wanted.end) return node
    if (node.pos > wanted.pos || node.end < wanted.end) return null
    return ts.forEachChild(node, (child) => visit(child) ?? undefined) ?? null
  }
  return visit(file)
}
