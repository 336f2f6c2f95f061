// A language model from its saved form, as DSPy's `LM.dump_state` writes it.

import { OptionError } from '../errors'
import { currentSettings } from './context'
import { LM, type LMConfig, WIRE_NAMES } from './lm'

/** DSPy's own class; a state without the mark is an older one of the same. */
const DSPY_LM = 'dspy.clients.lm.LM'

/** Settings of the Python object that have no meaning here. */
const PYTHON_ONLY = [
  '_dspy_lm_class',
  'model_type',
  'cache',
  'finetuning_model',
  'launch_kwargs',
  'train_kwargs',
  'use_developer_role',
]

/** Keys that say where prompts are sent. */
const UNSAFE = ['api_base', 'base_url', 'model_list']

const OUR_NAMES = Object.fromEntries(Object.entries(WIRE_NAMES).map(([ours, wire]) => [wire, ours]))
const KNOWN = new Set(['temperature', 'seed', 'stop', 'n', 'logprobs', ...Object.values(OUR_NAMES)])

/**
 * The saved model with its options; options that only some services know go along in `extraBody`.
 * @throws OptionError for a model of a class that exists in Python only
 */
export function lmFromState(state: Readonly<Record<string, unknown>>, { allowUnsafe }: { allowUnsafe: boolean }): LM {
  const { model, num_retries: numRetries, api_base: apiBase, base_url: baseUrl, ...rest } = state
  const from = state._dspy_lm_class ?? DSPY_LM
  if (from !== DSPY_LM) {
    throw new OptionError(
      `The saved language model is of the class ${String(from)}, which can't be made here. Load with { keepLm: true }, then set program.setLm(…).`,
    )
  }
  if (typeof model !== 'string') throw new OptionError(`The saved language model has no name: ${JSON.stringify(state)}.`)
  const unsafe = UNSAFE.filter((key) => state[key] !== undefined && state[key] !== null)
  if (unsafe.length > 0 && !allowUnsafe) {
    currentSettings().onWarning?.(
      `The saved ${unsafe.join(', ')} of ${model} is left out. If you trust the file: program.load(path, { allowUnsafeLmState: true }).`,
    )
  }
  // `cache: true` is only the default there; ours is off where the model behind the name may change
  const cache = state.cache === false ? { cache: false } : {}
  const base = allowUnsafe ? (apiBase ?? baseUrl) : undefined
  return new LM(model, {
    ...optionsOf(rest),
    ...cache,
    ...(typeof numRetries === 'number' ? { numRetries } : {}),
    ...(typeof base === 'string' ? { apiBase: base } : {}),
  })
}

function optionsOf(saved: Readonly<Record<string, unknown>>): LMConfig {
  const options: Record<string, unknown> = {}
  const extraBody: Record<string, unknown> = {}
  for (const [key, value] of Object.entries(saved)) {
    if (value === null || PYTHON_ONLY.includes(key) || UNSAFE.includes(key)) continue
    const name = OUR_NAMES[key] ?? key
    if (KNOWN.has(name)) options[name] = value
    else extraBody[key] = value
  }
  return Object.keys(extraBody).length > 0 ? { ...options, extraBody } : options
}
