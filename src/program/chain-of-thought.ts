// ChainOfThought: Predict with a field `reasoning` in front of the outputs, so that the model thinks before it answers.

import type { Demo } from './adapter'
import type { BaseLM, LMOptions } from './base-lm'
import type { Prediction } from './example'
import { type FieldSpec, OutputField } from './field'
import type { Flat } from './infer-types'
import { Module } from './module'
import { Predict, type PredictOptions } from './predict'
import { ensureSignature, type InputsOf, type OutputsOf, type Signature, type SignatureSource, type Typed } from './signature'

type Reasoned<S> = Typed<InputsOf<S>, Flat<{ reasoning: string } & OutputsOf<S>>>

/**
 * Reasons step by step, then answers.
 * @example const { reasoning, answer } = await new ChainOfThought('question -> answer').call({ question: 'Why is the sky blue?' })
 */
export class ChainOfThought<const S extends SignatureSource = SignatureSource> extends Module {
  readonly predict: Predict<Reasoned<S>>

  constructor(signature: S | Signature<S>, options: LMOptions & { readonly reasoning?: FieldSpec } = {}) {
    super()
    const { reasoning = OutputField(), ...config } = options
    const extended = ensureSignature(signature).prepend('reasoning', reasoning) as unknown as Signature<Reasoned<S>>
    this.predict = new Predict<Reasoned<S>>(extended, config)
  }

  forward(inputs: InputsOf<S>, options?: PredictOptions): Promise<Prediction<OutputsOf<Reasoned<S>>>> {
    return this.predict.call(inputs as never, options as never) as Promise<Prediction<OutputsOf<Reasoned<S>>>>
  }

  /** The predictor's demos, signature and language model, one step nearer. */
  get demos(): Demo[] {
    return this.predict.demos
  }

  set demos(demos: Demo[]) {
    this.predict.demos = demos
  }

  get signature(): Signature<Reasoned<S>> {
    return this.predict.signature
  }

  get lm(): BaseLM | null {
    return this.predict.lm
  }

  set lm(lm: BaseLM | null) {
    this.predict.lm = lm
  }
}
