// `ast.literal_eval`: the value of a Python literal in a completion, and `ast.dump`, which error messages quote.

import { type PyNode, parseExpression } from './python-expression'
import { pyRepr, strip } from './python-text'
import { PythonSyntaxError } from './python-tokens'

/** A tuple prints and validates like a list, except where a type asks for one or the other. */
export class PyTuple extends Array<unknown> {}

/** `ast.literal_eval(text)`, or `undefined` when the text is no literal. */
export function literalEval(text: string): unknown {
  try {
    return evaluate(parseExpression(strip(text)))
  } catch (error) {
    if (error instanceof PythonSyntaxError) return undefined
    throw error
  }
}

function evaluate(node: PyNode): unknown {
  switch (node.node) {
    case 'Constant':
      return node.value
    case 'Tuple':
      return PyTuple.from(node.elts.map(evaluate))
    case 'List':
    case 'Set':
      return node.elts.map(evaluate)
    case 'Dict':
      return Object.fromEntries(node.keys.map((key, i) => [String(evaluate(key)), evaluate(node.values[i]!)]))
    case 'UnaryOp': {
      const value = evaluate(node.operand)
      if (typeof value === 'number' && node.op === 'USub') return -value
      if (typeof value === 'number' && node.op === 'UAdd') return value
    }
  }
  throw new PythonSyntaxError(`${node.node} is no literal`)
}

/** `ast.dump(node)`. */
export function dump(node: PyNode): string {
  const list = (nodes: readonly PyNode[]) => `[${nodes.map(dump).join(', ')}]`
  switch (node.node) {
    case 'Constant':
      return `Constant(value=${pyRepr(node.value)})`
    case 'Name':
      return `Name(id=${pyRepr(node.id)}, ctx=Load())`
    case 'Attribute':
      return `Attribute(value=${dump(node.value)}, attr=${pyRepr(node.attr)}, ctx=Load())`
    case 'Subscript':
      return `Subscript(value=${dump(node.value)}, slice=${dump(node.slice)}, ctx=Load())`
    case 'Set':
      return `Set(elts=${list(node.elts)})`
    case 'Tuple':
    case 'List':
      return `${node.node}(elts=${list(node.elts)}, ctx=Load())`
    case 'Dict':
      return `Dict(keys=${list(node.keys)}, values=${list(node.values)})`
    case 'UnaryOp':
      return `UnaryOp(op=${node.op}(), operand=${dump(node.operand)})`
    case 'BinOp':
      return `BinOp(left=${dump(node.left)}, op=${node.op}(), right=${dump(node.right)})`
    case 'Call': {
      const keywords = node.keywords.map(([name, value]) => `keyword(arg=${pyRepr(name)}, value=${dump(value)})`)
      return `Call(func=${dump(node.func)}, args=${list(node.args)}, keywords=[${keywords.join(', ')}])`
    }
  }
}
