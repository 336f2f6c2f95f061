import { mkdirSync, mkdtempSync, realpathSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { declaredNames } from './compiler'
import { type CellResult, createExecutor, type DisplayEvent, type DisplayHost, type Executor } from './executor'

const folder = realpathSync(mkdtempSync(join(tmpdir(), 'arbor-cells-')))
const printed: { cell: string; name: string; text: string }[] = []
const shown: DisplayEvent[] = []
let executor: Executor
let count = 0

const run = (code: string) => executor.execute(code, { cellName: `cell-${++count}.ts` })
const evaluated = async (code: string) => {
  const result = await run(code)
  if (result.status === 'error') throw new Error(result.traceback.join('\n'))
  return result.value
}
const failure = async (code: string) => {
  const result: CellResult = await run(code)
  if (result.status === 'ok') throw new Error('the cell should have failed')
  return result
}
const host = () => (globalThis as unknown as Record<symbol, DisplayHost>)[Symbol.for('arbor-nb.display-host')]!

beforeAll(() => {
  mkdirSync(join(folder, 'own'))
  writeFileSync(join(folder, 'own/package.json'), '{"name":"arbor-nb","main":"index.js","types":"index.d.ts"}')
  writeFileSync(join(folder, 'own/index.js'), 'exports.answer = 42; exports.fail = () => { throw new RangeError("inside") }')
  writeFileSync(join(folder, 'own/index.d.ts'), 'export declare const answer: number; export declare function fail(): never')
  mkdirSync(join(folder, 'work'))
  writeFileSync(
    join(folder, 'work/helper.ts'),
    'interface Pair { a: number }\nexport const twice = ({ a }: Pair) => 2 * a\n\nexport function broken(): never {\n  throw new Error("helper broke")\n}\n',
  )
  const cwd = join(folder, 'work')
  executor = createExecutor({
    cwd,
    ownPackage: join(folder, 'own'),
    onStream: (event) => printed.push(event),
    onDisplay: (event) => shown.push(event),
  })
}, 30_000)
afterAll(() => {
  executor.close()
  rmSync(folder, { recursive: true })
})

describe('values and state', () => {
  it('gives the raw value of the last expression, and none for a declaration', async () => {
    expect(await evaluated('1 + 1')).toBe(2)
    expect(await run('const unused = 1')).toEqual({ status: 'ok' })
    expect(await evaluated('null')).toBe(null)
  })

  it('keeps variables, types and classes between cells, and lets a later cell assign and declare again', async () => {
    await run('let steps = 12\ninterface Row { q: string }\nclass Box { constructor(readonly v: number) {} }')
    expect(await evaluated('steps = 3\nconst row: Row = { q: "x" }\nnew Box(steps).v + row.q.length')).toBe(4)
    expect(await evaluated('const steps = "now text"\nsteps')).toBe('now text')
  })

  it('awaits at the top level, in plain and in for await', async () => {
    expect(await evaluated('const late = await Promise.resolve(5)\nlate')).toBe(5)
    expect(await evaluated('let sum = 0\nfor await (const n of [1, 2]) sum += n\nsum')).toBe(3)
  })

  it('reads variables of earlier cells in shorthand properties', async () => {
    await run('let rate = 3\nconst name = "a"')
    expect(await evaluated('const made = { rate, name, own: { rate } }\nmade')).toEqual({ rate: 3, name: 'a', own: { rate: 3 } })
    expect(await evaluated('({ rate } = { rate: 5 })\nrate')).toBe(5)
  })

  it('does not keep the variables of a failed cell', async () => {
    await failure('const half = 1\nthrow new Error("no")')
    expect((await failure('half')).evalue).toContain("Cannot find name 'half'")
  })
})

describe('imports', () => {
  it('finds our own package where none is installed, with its types', async () => {
    expect(await evaluated("import { answer } from 'arbor-nb'\nanswer")).toBe(42)
    expect((await failure("import { answr } from 'arbor-nb'\nanswr")).ename).toBe('TypeScriptError')
  })

  it('finds node modules with types, and local TypeScript', async () => {
    expect(await evaluated("import { basename } from 'node:path'\nbasename('/a/b')")).toBe('b')
    expect(await evaluated("import { twice } from './helper'\ntwice({ a: 4 })")).toBe(8)
  })

  it('names the line of a local module in a stack', async () => {
    const error = await failure("import { broken } from './helper'\n\nbroken()")
    expect(error.line).toBe(3)
    expect(error.traceback.join('\n')).toContain(`${join(folder, 'work/helper.ts')}:5:9`)
  })
})

describe('errors', () => {
  it('reports a type error with its line and column before anything runs', async () => {
    const error = await failure('console.log("not printed")\n\nconst bad: string = 42')
    expect(error).toMatchObject({ ename: 'TypeScriptError', line: 3, column: 7 })
    expect(error.diagnostics?.[0]).toMatchObject({ code: 2322, length: 3, file: null })
    expect(error.traceback.join('\n')).toContain('> 3 | const bad: string = 42\n    |       ^')
    expect(printed.some(({ text }) => text.includes('not printed'))).toBe(false)
  })

  it('points at the written column behind shorthand properties', async () => {
    await run('let first = 1')
    const typed = await failure('const wrong = [{ first }, { first }, missing]')
    expect([typed.line, typed.column]).toEqual([1, 38])
    const thrown = await failure('const bad = [{ first }, (undefined as any).x]')
    expect([thrown.line, thrown.column]).toEqual([1, 44])
  })

  it('reports a syntax error as one', async () => {
    expect(await failure('const = 1')).toMatchObject({ ename: 'SyntaxError', line: 1 })
  })

  it('points at the written line though types and imports were compiled away', async () => {
    const code = [
      "import { readFileSync } from 'node:fs'",
      'interface Much {',
      '  a: number',
      '}',
      '',
      'function fail(much: Much) {',
      '  if (much.a > 0) throw new TypeError("boom")',
      '}',
      'await Promise.resolve()',
      'fail({ a: 1 }); readFileSync',
    ].join('\n')
    const error = await failure(code)
    expect(error).toMatchObject({ ename: 'TypeError', evalue: 'boom', line: 7, column: 25 })
    const frames = error.traceback.filter((line) => line.includes(' at '))
    expect(frames).toEqual([`    at fail (cell-${count}.ts:7:25)`, `    at cell-${count}.ts:10:1`])
  })

  it('points at the failing cell when a function of an earlier one throws', async () => {
    await run('function deep() {\n  throw new Error("deep")\n}')
    const error = await failure('\n\n  deep()')
    expect(error).toMatchObject({ line: 3, column: 3 })
    expect(error.traceback.join('\n')).toContain(`cell-${count - 1}.ts:2:9`)
  })

  it('keeps library frames above the cell, and causes', async () => {
    const error = await failure(
      "import { fail } from 'arbor-nb'\ntry { fail() } catch (cause) { throw new Error('outer', { cause }) }",
    )
    const text = error.traceback.join('\n')
    expect(text).toContain('Caused by: RangeError: inside')
    expect(text).toContain('own/index.js:1')
    expect(text).not.toContain('kernels/jupyter')
    expect(text.match(/at cell-/g)).toHaveLength(2)
  })

  it('survives a thrown text', async () => {
    expect(await failure('throw "just text"')).toMatchObject({ ename: 'Error', evalue: 'just text' })
  })
})

describe('files that change while the notebook is open', () => {
  it('finds a module that was not there at first, and edits of it, whatever else is written meanwhile', async () => {
    const late = join(folder, 'work/late.ts')
    const settle = () => new Promise((resolve) => setTimeout(resolve, 400)) // TypeScript waits 250 ms before it looks again
    expect(await failure("import { value } from './late'\nvalue")).toMatchObject({ status: 'error' })
    writeFileSync(late, 'export const value = 1')
    for (const name of ['a', 'b']) writeFileSync(join(folder, `work/${name}.ts`), 'export {}')
    await settle()
    writeFileSync(join(folder, 'work/a.ts'), 'export const a = 1')
    expect(await evaluated("import { value } from './late'\nvalue")).toBe(1)
    rmSync(join(folder, 'work/b.ts'))
    await settle()
    expect(await evaluated('1 + 1')).toBe(2)
  }, 20_000)
})

describe('output', () => {
  it('keeps what a cell prints with that cell, even when it prints late', async () => {
    await run(
      'setTimeout(() => console.log("late"), 20)\nconsole.log({ a: 1 }); console.error("oops"); process.stdout.write("raw")',
    )
    const early = count
    await run('await new Promise((resolve) => setTimeout(resolve, 60))')
    const own = printed.filter(({ cell }) => cell === `cell-${early}.ts`).map(({ name, text }) => `${name}:${text}`)
    expect(own).toEqual(['stdout:{ a: 1 }\n', 'stderr:oops\n', 'stdout:raw', 'stdout:late\n'])
  })

  it('passes displays and updates of library code on, with their cell', async () => {
    await run('')
    host().display({ 'text/plain': 'a' }, { displayId: 'x' })
    host().update({ 'text/plain': 'b' }, 'x')
    const cell = `cell-${count}.ts`
    expect(shown).toEqual([
      { cell, bundle: { 'text/plain': 'a' }, displayId: 'x', update: false },
      { cell, bundle: { 'text/plain': 'b' }, displayId: 'x', update: true },
    ])
  })
})

describe('interrupt', () => {
  it('leaves SIGINT in working order when a cell listens to it while it runs', async () => {
    let heard = 0
    const listener = () => heard++
    process.on('SIGINT', listener)
    await run("process.on('SIGINT', () => {})")
    process.kill(process.pid, 'SIGINT')
    await new Promise((resolve) => setTimeout(resolve, 50))
    process.off('SIGINT', listener)
    expect(heard).toBe(1) // without the repair the signal ends this process
  })

  it('ends a waiting cell, aborts the signal, and keeps the state', async () => {
    await run('const kept = 1')
    const running = run('await new Promise(() => {})')
    await new Promise((resolve) => setTimeout(resolve, 50))
    const { signal } = host()
    executor.interrupt()
    expect(await running).toMatchObject({
      ename: 'KeyboardInterrupt',
      traceback: ['KeyboardInterrupt: The cell was interrupted'],
    })
    expect(signal.aborted).toBe(true)
    expect(await evaluated('kept')).toBe(1)
  })
})

it('lists the variables that a cell declares', () => {
  expect(declaredNames('let a = 1, b = "x"\nconst c = 2\nfunction f() { let d }\nimport x from "y"')).toEqual(['a', 'b', 'c'])
  expect(declaredNames('let a = 1\nconst c = 2', 'const')).toEqual(['c'])
})
