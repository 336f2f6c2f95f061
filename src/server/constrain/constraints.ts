// `response_format` → a constraint over the model's vocabulary. Schemas that come again, as a program's do, are compiled once.

import { createHash } from 'node:crypto'
import type { ModelInfo } from '../../engine/engine'
import type { WireResponseFormat } from '../../protocol'
import { HttpError } from '../http-errors'
import type { TextCodec } from '../services'
import { Constraint } from './constraint'
import type { Rule } from './grammar'
import { jsonObjectGrammar, jsonSchemaGrammar } from './json-schema'
import { SchemaError } from './schema-parts'
import { Vocabulary } from './vocabulary'

/** Schemas remembered with their masks, the latest used. */
const REMEMBERED = 16

export class Constraints {
  #vocabulary: Vocabulary | null = null
  readonly #known = new Map<string, Constraint>() // least recently used first

  constructor(
    private readonly codec: Pick<TextCodec, 'bytes' | 'stopTokenIds'>,
    private readonly model: Pick<ModelInfo, 'vocab'>,
  ) {}

  /**
   * What a request's answers are constrained by; null: nothing.
   * @throws HttpError 400 for a schema that is wrong, or asks for what can't be promised
   */
  of(format: WireResponseFormat | null | undefined): Constraint | null {
    if (!format || format.type === 'text') return null
    if (format.type === 'json_object') return this.#compiled('object', jsonObjectGrammar)
    const { schema } = format.json_schema
    const key = createHash('sha256')
      .update(JSON.stringify(schema ?? true))
      .digest('hex')
    return this.#compiled(key, () => schemaGrammar(schema ?? true))
  }

  #compiled(key: string, grammar: () => Rule): Constraint {
    const known = this.#known.get(key)
    const constraint = known && !known.worn ? known : this.#compile(grammar())
    this.#known.delete(key)
    this.#known.set(key, constraint)
    if (this.#known.size > REMEMBERED) this.#known.delete(this.#known.keys().next().value!)
    return constraint
  }

  #compile(grammar: Rule): Constraint {
    const { codec, model } = this
    this.#vocabulary ??= new Vocabulary(codec.bytes().slice(0, model.vocab), model.vocab)
    return new Constraint(grammar, this.#vocabulary, codec.stopTokenIds)
  }
}

function schemaGrammar(schema: unknown): Rule {
  try {
    return jsonSchemaGrammar(schema)
  } catch (cause) {
    if (!(cause instanceof SchemaError)) throw cause
    throw new HttpError(400, cause.message, { code: cause.code, param: 'response_format.json_schema.schema', cause })
  }
}
