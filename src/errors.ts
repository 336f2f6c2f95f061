// The errors a caller can act on. A message says what happened, with the value, and then what to do.

/** Base of every error this package throws on purpose. `code` is a short stable word for programs. */
export class ArborError extends Error {
  readonly code: string
  constructor(message: string, options: { code?: string; cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    this.name = new.target.name
    this.code = options.code ?? 'arbor_error'
  }
}

/** A completion that does not hold the fields of its signature. `raw` is the completion, `parsed` what was found. */
export class AdapterParseError extends ArborError {
  readonly adapterName: string
  readonly raw: string
  readonly parsed: Record<string, unknown> | null
  constructor(
    message: string,
    details: { adapterName: string; raw: string; parsed?: Record<string, unknown> | null; cause?: unknown },
  ) {
    super(message, { code: 'adapter_parse_error', cause: details.cause })
    this.adapterName = details.adapterName
    this.raw = details.raw
    this.parsed = details.parsed ?? null
  }
}

/** A server answered with an error, or not at all (`status` 0). */
export class ProtocolError extends ArborError {
  readonly status: number
  constructor(message: string, details: { status: number; code?: string; cause?: unknown }) {
    super(message, { code: details.code ?? 'protocol_error', cause: details.cause })
    this.status = details.status
  }
}

/** A language model call failed: transport, rate, or the service's own error. */
export class LMError extends ArborError {
  readonly status: number
  constructor(message: string, details: { status?: number; code?: string; cause?: unknown } = {}) {
    super(message, { code: details.code ?? 'lm_error', cause: details.cause })
    this.status = details.status ?? 0
  }
}

/** The prompt does not fit into the model's context. Another adapter would not help, so nothing retries it. */
export class ContextWindowExceededError extends LMError {
  constructor(message: string, details: { status?: number; cause?: unknown } = {}) {
    super(message, { ...details, code: 'context_length_exceeded' })
  }
}

/** A device operation failed; `op` names it. */
export class BackendError extends ArborError {
  readonly op: string
  constructor(message: string, details: { op: string; code?: string; cause?: unknown }) {
    super(message, { code: details.code ?? 'backend_error', cause: details.cause })
    this.op = details.op
  }
}

/** What a part of an engine's work takes of a device's memory at most, and what lowers it. */
export interface MemoryPart {
  readonly what: string
  readonly bytes: number
  readonly lower: string
}

/** A device has no memory left. `plan` says where it goes, once the engine has seen the error. */
export class OutOfMemoryError extends BackendError {
  readonly plan: readonly MemoryPart[] | null
  constructor(message: string, details: { op: string; plan?: readonly MemoryPart[]; cause?: unknown }) {
    super(message, { ...details, code: 'out_of_memory' })
    this.plan = details.plan ?? null
  }
}

/** A model, tokenizer or checkpoint file that is missing, cut short or of an unsupported kind. */
export class ModelError extends ArborError {
  constructor(message: string, options: { cause?: unknown } = {}) {
    super(message, { code: 'model_error', cause: options.cause })
  }
}

/** Options a person wrote that cannot be meant. */
export class OptionError extends ArborError {
  constructor(message: string, options: { cause?: unknown } = {}) {
    super(message, { code: 'option_error', cause: options.cause })
  }
}

/** The known name nearest to `name` by edit distance, or null when none is near (more than half of it would change). */
export function nearestName(name: string, known: Iterable<string>): string | null {
  let best: string | null = null
  let bestDistance = Math.floor(name.length / 2) + 1
  for (const candidate of known) {
    const distance = editDistance(name.toLowerCase(), candidate.toLowerCase())
    if (distance < bestDistance) [best, bestDistance] = [candidate, distance]
  }
  return best
}

function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++)
      next[j] = Math.min(row[j]! + 1, next[j - 1]! + 1, row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1))
    row = next
  }
  return row[b.length]!
}
