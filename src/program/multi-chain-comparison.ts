// MultiChainComparison: several attempts at an answer, read beside each other, become one. Follows dspy/predict/multi_chain_comparison.py.

import { OptionError } from '../errors'
import type { LMOptions } from './base-lm'
import { fieldsOf, type Prediction } from './example'
import { InputField, OutputField } from './field'
import type { Flat, Loose } from './infer-types'
import { Module } from './module'
import { Predict } from './predict'
import { pyStr, strip } from './python-text'
import { ensureSignature, type InputsOf, type OutputsOf, type Signature, type SignatureSource, type Typed } from './signature'

type Compared<S> = Typed<InputsOf<S>, Flat<{ rationale: string } & OutputsOf<S>>>

/**
 * @example
 * const compare = new dspy.MultiChainComparison('question -> answer', { M: 3 })
 * const { answer } = await compare.call({ completions: attempts, question })
 */
export class MultiChainComparison<const S extends SignatureSource = SignatureSource> extends Module {
  readonly predict: Predict<Compared<S>>
  readonly M: number
  private readonly lastField: string

  /** `M`: attempts to compare. The other options are the predictor's. */
  constructor(signature: S | Signature<S>, options: LMOptions & { readonly M?: number } = {}) {
    super()
    const { M = 3, temperature = 0.7, ...config } = options
    if (!(Number.isInteger(M) && M > 0)) throw new OptionError(`M must be a whole number from 1 on, but it is ${M}.`)
    const base = ensureSignature(signature) as unknown as Signature
    const last = base.outputFields.at(-1)
    if (!last) throw new OptionError(`There is nothing to compare: '${base.signature}' has no output.`)
    this.M = M
    this.lastField = last.name
    const attempts = Array.from({ length: M }, (_, i) => i + 1)
    const withAttempts = attempts.reduce(
      (extended, i) =>
        extended.append(
          `reasoning_attempt_${i}`,
          InputField({ prefix: `Student Attempt #${i}:`, desc: `\${reasoning attempt}` }),
        ) as unknown as Signature,
      base,
    )
    const rationale = OutputField({
      prefix: "Accurate Reasoning: Thank you everyone. Let's now holistically",
      desc: `\${corrected reasoning}`,
    })
    this.predict = new Predict(withAttempts.prepend('rationale', rationale) as unknown as Signature<Compared<S>>, {
      temperature,
      ...config,
    })
  }

  /** `completions`: M answers with `rationale` or `reasoning`, and the last output. @throws OptionError for another number of them */
  async forward(inputs: Flat<{ completions: readonly object[] } & InputsOf<S>>): Promise<Prediction<OutputsOf<Compared<S>>>> {
    const { completions, ...given } = inputs as { completions: readonly object[] } & Loose
    if (!Array.isArray(completions))
      throw new OptionError('MultiChainComparison takes its attempts beside the inputs: call({ completions: [ … ], … }).')
    if (completions.length !== this.M) {
      throw new OptionError(
        `The number of attempts (${completions.length}) doesn't match the expected number M (${this.M}). ` +
          'Please set the correct value for M when initializing MultiChainComparison.',
      )
    }
    const attempts = completions.map((completion, i) => [`reasoning_attempt_${i + 1}`, [this.describe(fieldsOf(completion))]])
    const call = this.predict.call({ ...Object.fromEntries(attempts), ...given } as never)
    return call as Promise<Prediction<OutputsOf<Compared<S>>>>
  }

  private describe(completion: Loose): string {
    const reasoning = completion['rationale'] ?? completion['reasoning']
    if (reasoning === undefined) {
      throw new OptionError(
        `A completion needs a \`rationale\` or \`reasoning\`; it has ${Object.keys(completion).join(', ') || 'no fields'}.`,
      )
    }
    return `I'm trying to ${firstLine(reasoning)} I'm not sure but my prediction is ${firstLine(completion[this.lastField])}`
  }
}

function firstLine(value: unknown): string {
  return strip(strip(pyStr(value)).split('\n')[0]!)
}
