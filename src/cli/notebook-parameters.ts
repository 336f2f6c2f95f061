// `-p name=value`: overrides variables of the cell tagged `parameters`, by a cell of assignments after it, as papermill does.

import { declaredNames } from '../../kernels/jupyter/compiler'
import { nearestName, OptionError } from '../errors'
import { type CodeCell, hasTag, isCode, type Notebook } from './notebook'

/** The tag of the cell of assignments, papermill's. */
export const INJECTED = 'injected-parameters'

/** `name=value` pairs; a value that is JSON is that, else text. OptionError for one without a name. */
export function parseParameters(pairs: readonly string[]): Map<string, unknown> {
  const parameters = new Map<string, unknown>()
  for (const pair of pairs) {
    const [, name, text] = /^([A-Za-z_$][\w$]*)=(.*)$/s.exec(pair) ?? []
    if (name === undefined || text === undefined) throw new OptionError(`-p ${pair}: write it as -p name=value`)
    parameters.set(name, jsonOrText(text))
  }
  return parameters
}

/** Puts the cell of assignments into `notebook`, in the place of an earlier one. OptionError names what can be set. */
export function injectParameters(notebook: Notebook, parameters: ReadonlyMap<string, unknown>): void {
  if (parameters.size === 0) return
  const cell = notebook.cells.find((candidate) => isCode(candidate) && hasTag(candidate, 'parameters'))
  if (!cell) throw new OptionError('-p sets variables of a cell tagged "parameters", and this notebook has no such cell')
  const names = declaredNames(cell.source)
  const constants = declaredNames(cell.source, 'const')
  for (const name of parameters.keys()) {
    if (!names.includes(name)) throw new OptionError(unknownParameter(name, names))
    if (constants.includes(name))
      throw new OptionError(`-p ${name}: the parameters cell declares it with const; declare it with let so that it can be set`)
  }
  notebook.cells = notebook.cells.filter((candidate) => !hasTag(candidate, INJECTED))
  notebook.cells.splice(notebook.cells.indexOf(cell) + 1, 0, assignments(parameters, notebook.nbformat_minor >= 5))
}

function assignments(parameters: ReadonlyMap<string, unknown>, withId: boolean): CodeCell {
  const source = ['// set by arbor-nb run -p', ...[...parameters].map(([name, value]) => `${name} = ${JSON.stringify(value)}`)]
  const id = withId ? { id: INJECTED } : {}
  const metadata = { tags: [INJECTED] }
  return { cell_type: 'code', ...id, metadata, source: source.join('\n'), execution_count: null, outputs: [] }
}

function unknownParameter(name: string, names: string[]): string {
  const near = nearestName(name, names)
  const known = names.length > 0 ? `It has: ${names.join(', ')}` : 'It declares no variables'
  return `-p ${name}: the parameters cell has no variable of this name${near ? `; did you mean ${near}?` : '.'} ${known}`
}

function jsonOrText(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return text // not JSON: the text itself is meant
  }
}
