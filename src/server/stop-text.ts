// The text of a completion while it is sampled, cut before a stop string.

import type { TextStream } from './tokenizer'

/**
 * Fed with tokens as they come. It takes tokens up to the one that completed a stop string: these are the tokens recorded for
 * training, because they are what the policy chose up to the decision to stop. `text` ends before the stop string.
 */
export class CompletionText {
  /** Text that each token added; '' for a token that is special or leaves a character open. Empty where all tokens came at once. */
  readonly tokenTexts: string[] = []
  private whole = ''
  private stopAt: number | null = null
  private taken = 0

  /** @param decode where it is given, tokens that nobody watched are read at once, in a tenth of the time */
  constructor(
    private readonly stream: TextStream,
    private readonly stops: readonly string[] = [],
    private readonly decode: ((tokens: readonly number[]) => string) | null = null,
  ) {}

  /** True once a stop string stands in the text. */
  get stopped(): boolean {
    return this.stopAt !== null
  }

  /** Tokens taken in: all of those fed, or those up to the end of the stop string. */
  get tokenCount(): number {
    return this.taken
  }

  get text(): string {
    return this.stopAt === null ? this.whole : this.whole.slice(0, this.stopAt)
  }

  /** The part of `text` that no stop string can still take back. */
  get safeText(): string {
    if (this.stopAt !== null) return this.text
    let held = 0
    for (const stop of this.stops)
      for (let length = Math.min(stop.length - 1, this.whole.length); length > held; length--)
        if (this.whole.endsWith(stop.slice(0, length))) held = length
    return this.whole.slice(0, this.whole.length - held)
  }

  /** Takes all tokens so far (a growing list) and reads the new ones. */
  feed(tokens: readonly number[]): void {
    while (this.tokenCount < tokens.length && !this.stopped) {
      const piece = this.stream.push(tokens[this.taken++]!)
      this.tokenTexts.push(piece)
      this.append(piece)
    }
  }

  /** No more tokens will come: a half character at the end shows as the replacement sign. */
  finish(tokens: readonly number[]): void {
    if (this.decode && this.taken === 0 && this.stops.length === 0) {
      this.whole = this.decode(tokens)
      this.taken = tokens.length
      return
    }
    this.feed(tokens)
    if (this.stopped || tokens.length === 0) return
    const rest = this.stream.flush()
    this.tokenTexts[this.taken - 1] += rest
    this.append(rest)
  }

  private append(piece: string): void {
    const from = this.whole.length
    this.whole += piece
    for (const stop of this.stops) {
      const at = this.whole.indexOf(stop, Math.max(0, from - stop.length + 1))
      if (at >= 0 && (this.stopAt === null || at < this.stopAt)) this.stopAt = at
    }
  }
}
