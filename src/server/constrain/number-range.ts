// Numbers between two bounds, as text: digit by digit, as long as what was written may still lie between them.

import { ByteSet, bytesOf, either, type Fragment, type Grammar, type Node, never, sequence, text } from './grammar'
import { MOST_DIGITS } from './json-text'

export interface NumberRange {
  readonly min: number
  readonly max: number
  /** The bound itself is left out. */
  readonly minOpen: boolean
  readonly maxOpen: boolean
  /** Decimals there may be; 0 for integers. */
  readonly decimals: number
}

const BEYOND = 10 ** MOST_DIGITS
const POINT = new ByteSet([[0x2e, 0x2e]])

/** Written without an exponent. Numbers of more than fifteen digits before the point are left out. */
export function numbersBetween({ min, max, minOpen, maxOpen, decimals }: NumberRange): Fragment {
  const parts: Fragment[] = []
  if (max > 0 || (max === 0 && !maxOpen))
    parts.push(magnitudes(bound(Math.max(min, 0), min >= 0 && minOpen), bound(max, maxOpen), decimals))
  if (min < 0) {
    const from = max < 0 ? bound(-max, maxOpen) : bound(0, true) // -0 is written 0
    parts.push(sequence(text('-'), magnitudes(from, bound(-min, minOpen), decimals)))
  }
  return parts.length === 0 ? never : either(...parts)
}

/** A bound that is not negative, in decimal. */
interface Bound {
  readonly whole: string
  readonly decimals: string
  readonly open: boolean
}

function bound(value: number, open: boolean): Bound | null {
  if (value >= BEYOND) return null
  const shortest = String(value)
  const [whole, decimals = ''] = (/e/.test(shortest) ? value.toFixed(MOST_DIGITS) : shortest).split('.') as [string, string?]
  return { whole, decimals: decimals.replace(/0+$/, ''), open }
}

/** What is written so far equals the beginning of the lower bound, of the upper bound. */
interface Tight {
  readonly low: boolean
  readonly high: boolean
}

/** `low` null: beyond what is written; `high` null: no bound. */
function magnitudes(low: Bound | null, high: Bound | null, decimals: number): Fragment {
  if (!low) return never
  return (grammar, next) => {
    const writer = new Digits(grammar, next, { low, high, decimals })
    const lengths = Array.from(
      { length: (high?.whole.length ?? MOST_DIGITS) - low.whole.length + 1 },
      (_, i) => low.whole.length + i,
    )
    return grammar.choice(lengths.flatMap((length) => writer.numbers(length) ?? []))
  }
}

class Digits {
  constructor(
    private readonly grammar: Grammar,
    private readonly next: Node,
    private readonly range: { readonly low: Bound; readonly high: Bound | null; readonly decimals: number },
  ) {}

  /** Numbers with so many digits before the point. */
  numbers(length: number): Node | null {
    const { low, high } = this.range
    return this.#whole(length, 0, { low: length === low.whole.length, high: length === high?.whole.length })
  }

  #whole(length: number, at: number, tight: Tight): Node | null {
    if (at === length) return this.#afterWhole(tight)
    const { low, high } = this.range
    const [from, to] = [tight.low ? Number(low.whole[at]) : 0, tight.high ? Number(high!.whole[at]) : 9]
    const first = at === 0 && length > 1 ? 1 : 0
    return this.#digit([Math.max(from, first), to], [from, to], tight, (now) => this.#whole(length, at + 1, now))
  }

  #afterWhole(tight: Tight): Node | null {
    const decimals = this.range.decimals > 0 ? this.#decimal(0, tight) : null
    const point = decimals && this.grammar.byte(POINT, decimals)
    return this.#any([this.#mayEnd(0, tight) ? this.next : null, point])
  }

  #decimal(at: number, tight: Tight): Node | null {
    if (at === this.range.decimals) return null
    const digitOf = (bound: Bound | null) => Number(bound?.decimals[at] ?? 0)
    const range = [tight.low ? digitOf(this.range.low) : 0, tight.high ? digitOf(this.range.high) : 9] as const
    return this.#digit(range, range, tight, (now) =>
      this.#any([this.#mayEnd(at + 1, now) ? this.next : null, this.#decimal(at + 1, now)]),
    )
  }

  /** Whether a number with so many decimals written may end: what isn't written counts as zeros. */
  #mayEnd(written: number, tight: Tight): boolean {
    const { low, high } = this.range
    const equals = (one: Bound) => one.decimals.length <= written
    if (tight.low && (!equals(low) || low.open)) return false
    return !(tight.high && high && equals(high) && high.open)
  }

  /** A digit of [from, to]; at `edges` it stays tight. */
  #digit(
    [from, to]: readonly [number, number],
    edges: readonly [number, number],
    tight: Tight,
    go: (tight: Tight) => Node | null,
  ): Node | null {
    const groups = new Map<string, { tight: Tight; digits: number[] }>()
    for (let digit = from; digit <= to; digit++) {
      const now = { low: tight.low && digit === edges[0], high: tight.high && digit === edges[1] }
      const key = `${now.low} ${now.high}`
      groups.set(key, { tight: now, digits: [...(groups.get(key)?.digits ?? []), digit] })
    }
    return this.#any(
      [...groups.values()].map((group) => {
        const after = go(group.tight)
        const ranges = group.digits.map((digit) => [0x30 + digit, 0x30 + digit] as const)
        return after && bytesOf(...ranges)(this.grammar, after)
      }),
    )
  }

  #any(nodes: readonly (Node | null)[]): Node | null {
    const ways = nodes.flatMap((node) => node ?? [])
    return ways.length > 1 ? this.grammar.choice(ways) : (ways[0] ?? null)
  }
}
