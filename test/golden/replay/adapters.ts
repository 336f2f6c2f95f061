// Replays of JSONAdapter, of one call with its second one in another format, and of training data.
import { ChatAdapter, context, fieldsOf, JSONAdapter, Predict, XMLAdapter } from '../../../src/program'
import type { Adapter } from '../../../src/program/adapter'
import { type Difference, firstDifference, type GoldenCase, type Outcome, type Replay } from './case'
import { compareResult, floats, formatWith, parseWith, readSignature, type SignatureDescription } from './dspy'
import { type LMScript, ScriptedLM } from './scripted-lm'

type Row = Record<string, unknown>

export const adapterReplays: Record<string, Replay> = {
  json_format: formatWith(new JSONAdapter()),
  json_parse: parseWith(new JSONAdapter()),
  adapter_call: replayCall,
  finetune_format: replayFinetune,
}

interface Capability {
  readonly supports_response_format: boolean
  readonly supports_response_schema: boolean
}

class CapableLM extends ScriptedLM {
  constructor(
    script: LMScript,
    private readonly capability: Capability,
  ) {
    super(script)
  }

  override get supportsResponseFormat(): boolean {
    return this.capability.supports_response_format
  }

  override get supportsResponseSchema(): boolean {
    return this.capability.supports_response_schema
  }
}

function adapterOf(name: string, options: Row = {}): Adapter {
  if (name === 'json') return new JSONAdapter()
  if (name === 'xml') return new XMLAdapter()
  return new ChatAdapter(options.use_json_adapter_fallback === false ? { fallback: null } : {})
}

async function replayCall({ input, expected }: GoldenCase): Promise<Difference | null> {
  const given = input as {
    signature: SignatureDescription
    adapter: string
    adapter_options: Row
    lm: Capability
    inputs: Row
    lm_script: LMScript
  }
  const lm = new CapableLM(given.lm_script, given.lm)
  const adapter = adapterOf(given.adapter, given.adapter_options)
  const predict = new Predict(readSignature(given.signature))
  const calls = () => lm.calls.map(({ messages, kwargs }) => ({ messages, kwargs: pydanticFormat(kwargs) }))
  const { lm_calls, ...result } = expected as Row & { lm_calls: Row[] }
  const difference = await compareResult(result, async () => ({
    value: floats(fieldsOf(await context({ lm, adapter }, () => predict.call(given.inputs)))),
  }))
  const wanted = lm_calls.map(({ response: _, ...call }) => call)
  return difference ?? firstDifference(wanted, calls(), { path: 'lm_calls' })
}

/** The vectors hold the schema of DSPy's pydantic model; on the wire it stands in an envelope. */
function pydanticFormat(kwargs: Row): Row {
  const format = kwargs.response_format as { json_schema?: { schema: unknown } } | undefined
  return format?.json_schema ? { ...kwargs, response_format: { $pydantic_json_schema: format.json_schema.schema } } : kwargs
}

function replayFinetune({ input, expected }: GoldenCase): Promise<Outcome> | Outcome {
  const { adapter, signature, demos, inputs, outputs } = input as {
    adapter: string
    signature: SignatureDescription
    demos: Row[]
    inputs: Row
    outputs: Row
  }
  if (adapter === 'json') return 'skip: DSPy can write no training data in JSON; we train the adapter that asked'
  return compareResult(expected as Row, () => ({
    value: adapterOf(adapter).formatFinetuneData(readSignature(signature), demos, inputs, outputs),
  }))
}
