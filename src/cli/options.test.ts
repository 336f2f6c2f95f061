import { describe, expect, it } from 'vitest'
import { OptionError } from '../errors'
import { choiceOption, numberOption, parseOptions } from './options'

const options = {
  model: { type: 'string' },
  verbose: { type: 'boolean', short: 'v' },
  param: { type: 'string', short: 'p', multiple: true },
} as const

describe('parseOptions', () => {
  it('gives typed values and the positionals', () => {
    const { values, positionals } = parseOptions(['A', '--model', 'm', '-v', '-p', 'x=1', '--param=y=2'], options, ['FILE'])
    const model: string | undefined = values.model
    const verbose: boolean | undefined = values.verbose
    const param: string[] | undefined = values.param
    expect([model, verbose, param, positionals]).toEqual(['m', true, ['x=1', 'y=2'], ['A']])
  })

  it.each([
    [['--modle', 'x'], 'Unknown option --modle. Did you mean --model?'],
    [['--xyzzy'], 'Unknown option --xyzzy.'],
    [['-q'], 'Unknown option -q.'],
    [['--model'], "Option '--model <value>' argument missing."],
    [['--verbose=yes'], "Option '-v, --verbose' does not take an argument."],
    [['extra'], 'Unexpected argument "extra".'],
  ])('%j: %s', (argv, message) => {
    expect(() => parseOptions(argv, options)).toThrow(new OptionError(message))
  })

  it('missing positionals are named', () => {
    expect(() => parseOptions(['a'], options, ['FROM', 'TO'])).toThrow('TO is missing.')
    expect(() => parseOptions([], options, ['FROM', 'TO'])).toThrow('FROM and TO are missing.')
    expect(parseOptions(['a', 'b', 'c'], options, ['FROM', '[TO...]']).positionals).toEqual(['a', 'b', 'c'])
  })
})

describe('values', () => {
  it('numbers are checked, 0 is a number, and what was not given stays undefined', () => {
    expect(numberOption(undefined, '--port')).toBe(undefined)
    expect(numberOption('0', '--port', { min: 0, max: 65535, integer: true })).toBe(0)
    for (const wrong of ['', ' ', 'x', '1.5', '-1', '65536'])
      expect(() => numberOption(wrong, '--port', { min: 0, max: 65535, integer: true })).toThrow(
        `--port ${wrong}: a whole number from 0 to 65535 is needed.`,
      )
    expect(() => numberOption('x', '--rate')).toThrow('--rate x: a number is needed.')
    expect(() => numberOption('0', '--steps', { min: 1 })).toThrow('--steps 0: a number of at least 1 is needed.')
  })

  it('a choice that is not there names the nearest', () => {
    expect(choiceOption('cuda', '--device', ['cpu', 'cuda'])).toBe('cuda')
    expect(() => choiceOption('cud', '--device', ['cpu', 'cuda'])).toThrow(
      '--device cud: choose one of cpu, cuda. Did you mean cuda?',
    )
  })
})
