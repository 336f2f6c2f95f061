// An adapter that adds a hint to every call of another one: how Refine's advice reaches the predictors.

import { Adapter, type AdapterCall, type AdapterRequest, type Demo, type ParseResult, type UserMessageOptions } from './adapter'
import { type Field, InputField } from './field'
import type { Loose } from './infer-types'
import type { Signature } from './signature'

const HINT = InputField({ desc: 'A hint to the module from an earlier run' })

export class HintingAdapter extends Adapter {
  constructor(
    readonly inner: Adapter,
    /** The hint for a predictor, by its signature. */
    readonly hintFor: (signature: Signature) => string,
  ) {
    super()
  }

  override get name(): string {
    return this.inner.name
  }

  /** The hint joins the inputs themselves, so that the trace shows what the model saw. */
  override call(request: AdapterRequest): Promise<AdapterCall> {
    const inputs = Object.assign(request.inputs, { hint_: this.hintFor(request.signature) })
    const signature = request.signature.append('hint_', HINT) as unknown as Signature
    return this.inner.call({ ...request, signature, inputs })
  }

  override format(signature: Signature, demos: readonly Demo[], inputs: object) {
    return this.inner.format(signature, demos, inputs)
  }

  override tryParse(signature: Signature, completion: string): ParseResult {
    return this.inner.tryParse(signature, completion)
  }

  override formatFieldStructure(signature: Signature): string {
    return this.inner.formatFieldStructure(signature)
  }

  override formatFields(fields: readonly Field[], value: (field: Field) => unknown): string {
    return this.inner.formatFields(fields, value)
  }

  override formatUserMessage(signature: Signature, inputs: Loose, options?: UserMessageOptions): string {
    return this.inner.formatUserMessage(signature, inputs, options)
  }

  override formatAssistantMessage(signature: Signature, outputs: Loose, missing?: string): string {
    return this.inner.formatAssistantMessage(signature, outputs, missing)
  }
}
