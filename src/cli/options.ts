// One way to read a command's arguments: node:util's parseArgs, with errors that name the flag and the nearest known one.

import { type ParseArgsConfig, parseArgs } from 'node:util'
import { nearestName, OptionError } from '../errors'

/** What every file of this folder that is a command exports. */
export interface Command {
  /** The text of `arbor-nb COMMAND --help`. */
  readonly help: string
  /** Does the work and returns the process's exit code; a thrown OptionError means exit code 2, any other error 1. */
  run(argv: readonly string[]): Promise<number>
}

type OptionsConfig = NonNullable<ParseArgsConfig['options']>
type Parsed<T extends OptionsConfig> = ReturnType<
  typeof parseArgs<{ options: T; args: string[]; allowPositionals: true; strict: true }>
>

/**
 * Parses `argv`; `names` are the positional arguments, e.g. ['MODEL'], required but for those in brackets: ['[FOLDER]'];
 * a last one with dots takes all that follow: ['[RUN...]'].
 * Throws OptionError for an unknown flag, a flag without its value, and a missing or extra positional.
 */
export function parseOptions<const T extends OptionsConfig>(
  argv: readonly string[],
  options: T,
  names: readonly string[] = [],
): { values: Parsed<T>['values']; positionals: string[] } {
  let parsed: Parsed<T>
  try {
    parsed = parseArgs({ args: [...argv], options, allowPositionals: true as const, strict: true as const })
  } catch (error) {
    throw optionError(error as Error & { code?: string }, options)
  }
  const { positionals } = parsed
  const missing = names.slice(positionals.length).filter((name) => !name.startsWith('['))
  if (missing.length > 0) throw new OptionError(`${missing.join(' and ')} ${missing.length > 1 ? 'are' : 'is'} missing.`)
  const rest = names.at(-1)?.includes('...') === true
  if (positionals.length > names.length && !rest) throw new OptionError(`Unexpected argument "${positionals[names.length]}".`)
  return { values: parsed.values, positionals: [...positionals] }
}

/** The number a flag was given, or undefined when it was not. */
export function numberOption(
  value: string | undefined,
  flag: string,
  range: { min?: number; max?: number; integer?: boolean } = {},
): number | undefined {
  if (value === undefined) return undefined
  const number = value.trim() === '' ? Number.NaN : Number(value)
  const { min = -Infinity, max = Infinity, integer = false } = range
  if (Number.isNaN(number) || number < min || number > max || (integer && !Number.isInteger(number)))
    throw new OptionError(`${flag} ${value}: a${integer ? ' whole' : ''} number${bounds(min, max)} is needed.`)
  return number
}

function bounds(min: number, max: number): string {
  if (max === Infinity) return min === -Infinity ? '' : ` of at least ${min}`
  return min === -Infinity ? ` of at most ${max}` : ` from ${min} to ${max}`
}

/** The value of a flag that has a fixed set of values. */
export function choiceOption<const T extends string>(value: string, flag: string, choices: readonly T[]): T {
  const found = choices.find((choice) => choice === value)
  if (found !== undefined) return found
  throw new OptionError(`${flag} ${value}: choose one of ${choices.join(', ')}.${didYouMean(nearestName(value, choices))}`)
}

/** ' Did you mean X?', or nothing. */
export function didYouMean(name: string | null): string {
  return name === null ? '' : ` Did you mean ${name}?`
}

function optionError(error: Error & { code?: string }, options: OptionsConfig): OptionError {
  const flag = /'(-[^' ]+)/.exec(error.message)?.[1] ?? ''
  if (error.code === 'ERR_PARSE_ARGS_UNKNOWN_OPTION') {
    const known = Object.keys(options).map((name) => `--${name}`)
    return new OptionError(`Unknown option ${flag}.${didYouMean(nearestName(flag, known))}`, { cause: error })
  }
  return new OptionError(error.message.split('. ')[0]!.split('\n')[0]! + '.', { cause: error })
}
