import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeEach, describe, expect, it, vi } from 'vitest'
import { OptionError } from '../errors'
import { isCode, type Notebook, parseNotebook } from './notebook'
import { run } from './run'

const folder = mkdtempSync(join(tmpdir(), 'arbor-run-'))
const fixture = (name: string) => join('test/notebooks/fixtures', `${name}.ipynb`)
const out = join(folder, 'out.ipynb')
const read = (): Notebook => parseNotebook(readFileSync(out, 'utf8'), out)
const code = () => read().cells.filter(isCode)
let terminal = ''

beforeEach(() => {
  terminal = ''
  const capture = (text: string | Uint8Array) => {
    terminal += text.toString()
    return true
  }
  vi.spyOn(process.stdout, 'write').mockImplementation(capture)
  vi.spyOn(process.stderr, 'write').mockImplementation(capture)
  return () => vi.restoreAllMocks()
})
afterAll(() => rmSync(folder, { recursive: true }))

describe('arbor-nb run', () => {
  it('keeps outputs in a valid notebook and leaves the original alone', async () => {
    const before = readFileSync(fixture('parameters'), 'utf8')
    expect(await run([fixture('parameters'), '-o', out])).toBe(0)
    expect(readFileSync(fixture('parameters'), 'utf8')).toBe(before)
    const [, second, empty, last] = code()
    expect(second?.outputs).toEqual([
      { output_type: 'stream', name: 'stdout', text: 'tiny: 12 steps\n' },
      { output_type: 'execute_result', data: { 'text/plain': '12' }, metadata: {}, execution_count: 2 },
    ])
    expect(empty).toMatchObject({ execution_count: null, outputs: [] })
    expect(last?.execution_count).toBe(3)
    const json = JSON.parse(readFileSync(out, 'utf8'))
    expect(json.cells[2].outputs[0].text).toEqual(['tiny: 12 steps\n'])
    expect(Object.keys(json)).toEqual(['cells', 'metadata', 'nbformat', 'nbformat_minor'])
    expect(readdirSync(folder)).toEqual(['out.ipynb'])
    expect(terminal).toMatch(/\[2\/3\] console\.log\(.*\)\ntiny: 12 steps\n12\n/)
    expect(terminal).toMatch(/\nParameters\n\[1\/3\]/)
  }, 30_000)

  it('sets parameters by a cell of assignments, JSON or text', async () => {
    const given = ['-p', 'steps=3', '-p', 'name=a=b', '-p', 'rates=[1,2]']
    expect(await run([fixture('parameters'), ...given, '-o', out])).toBe(0)
    const [, injected, next] = code()
    expect(injected?.metadata).toMatchObject({ tags: ['injected-parameters'] })
    expect(injected?.source.split('\n').slice(1)).toEqual(['steps = 3', 'name = "a=b"', 'rates = [1,2]'])
    expect(injected?.outputs).toEqual([])
    expect(next?.outputs[0]).toMatchObject({ text: 'a=b: 3 steps\n' })
    expect(next?.outputs[1]).toMatchObject({ data: { 'text/plain': '6' } })
    // An executed notebook run again gets its cell replaced, not a second one.
    expect(await run([out, '-p', 'steps=4', '-o', out])).toBe(0)
    expect(code().filter(({ source }) => source.includes('set by arbor-nb'))).toHaveLength(1)
  }, 30_000)

  it('refuses parameters that the notebook does not have, and says which it has', async () => {
    const error = run([fixture('parameters'), '-p', 'step=3'])
    await expect(error).rejects.toBeInstanceOf(OptionError)
    await expect(error).rejects.toThrow('did you mean steps? It has: steps, name, rates, fixed')
    await expect(run([fixture('parameters'), '-p', 'fixed=3'])).rejects.toThrow('declare it with let')
    await expect(run([fixture('parameters'), '-p', 'steps'])).rejects.toThrow('-p name=value')
    await expect(run([fixture('failing'), '-p', 'a=1'])).rejects.toThrow('no such cell')
  })

  it('checks the type of a parameter', async () => {
    expect(await run([fixture('parameters'), '-p', 'steps=many', '-o', out])).toBe(1)
    expect(terminal).toContain("Type 'string' is not assignable to type 'number'")
  }, 30_000)

  it('ends with 1 at the failing cell, told with its line and a caret, and still writes the notebook', async () => {
    expect(await run([fixture('failing'), '-o', out])).toBe(1)
    expect(terminal).toContain('failing.ipynb, cell 2, line 6 failed\nRangeError: reward -1 is negative')
    expect(terminal).toMatch(/> 6 \| {3}if \(row\.reward < 0\) throw new RangeError\(.*\)\n {4}\| +\^\n/)
    expect(terminal).toContain('at cell-2.ts:9:1')
    const [first, second, third] = code()
    expect(first?.outputs).toHaveLength(1)
    expect(second?.outputs[0]).toMatchObject({ output_type: 'error', ename: 'RangeError', evalue: 'reward -1 is negative' })
    expect(third).toMatchObject({ execution_count: null, outputs: [] })
  }, 30_000)

  it('goes on after a cell tagged raises-exception', async () => {
    expect(await run([fixture('allowed-failure'), '-o', out])).toBe(0)
    expect(code()[0]?.outputs[0]).toMatchObject({ output_type: 'error', ename: 'TypeScriptError' })
    expect(code()[1]?.outputs).toHaveLength(1)
  }, 30_000)

  it('replaces an updated display and writes a page in which hostile text is only text', async () => {
    const html = join(folder, 'page.html')
    expect(await run([fixture('display'), '-o', out, '--html', html])).toBe(0)
    const [live] = code()
    expect(live?.outputs.map((output) => output.output_type)).toEqual(['display_data', 'stream'])
    expect(live?.outputs[0]).toMatchObject({ data: { 'text/plain': 'step 2', 'text/html': '<b>step 2</b>' } })
    const page = readFileSync(html, 'utf8')
    expect(page).toContain('<b>step 2</b>')
    expect(page).not.toContain('<script>alert')
    expect(page).not.toContain('<img src=x')
    expect(page).not.toContain('<i>bad</i>')
    expect(page).toContain('<em>things</em>')
    expect(page.match(/plotly\.js \(basic/g)?.length).toBe(1)
    const ours = page.replace(/<script>\/\*\*[\s\S]*?<\/script>/, '')
    expect(ours.length).toBeLessThan(40_000)
    expect(ours.replaceAll('http://www.w3.org/1998/Math/MathML', '')).not.toMatch(/https?:/) // a formula's namespace is no address to load
  }, 30_000)

  it('keeps what was reached when it is interrupted, and leaves no process behind', async () => {
    const running = run([fixture('waiting'), '-o', out])
    await vi.waitFor(() => expect(terminal).toContain('child '), 20_000)
    process.emit('SIGINT', 'SIGINT')
    expect(await running).toBe(130)
    const pid = Number(/child (\d+)/.exec(terminal)?.[1])
    expect(() => process.kill(pid, 0)).toThrow('ESRCH')
    const [first, second] = code()
    expect(first?.outputs.at(-1)).toMatchObject({ output_type: 'error', ename: 'KeyboardInterrupt' })
    expect(second?.outputs).toEqual([])
  }, 30_000)

  it('says what is wrong with a file that is no notebook', async () => {
    await expect(run(['package.json'])).rejects.toThrow('not a notebook that can be run')
    await expect(run(['LICENSE'])).rejects.toThrow('holds no valid JSON')
    await expect(run(['absent.ipynb'])).rejects.toThrow("Can't read the notebook")
    expect(existsSync('package.executed.ipynb')).toBe(false)
  })
})
