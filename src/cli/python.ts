// arbor-nb python: where the module lies that puts our server in the place of Arbor's own.

import { join } from 'node:path'
import { parseOptions } from './options'
import { packageInfo } from './package-info'

export const help = `Usage: arbor-nb python

Prints the folder of arbor_nb.py. With it on PYTHONPATH (export PYTHONPATH=$(arbor-nb python)), Python's dspy and arbor-ai train on this server, without torch, vllm or a GPU:

  pip install dspy requests && pip install --no-deps arbor-ai

  import arbor_nb                # first
  import arbor
  server = arbor.init()          # starts arbor-nb serve; it ends with Python
  lm = dspy.LM("openai/arbor:arbor-tiny", provider=arbor.ArborProvider(), api_base=server["base_url"], api_key="none")

The first model that is asked for is loaded; arbor_nb.serve_options holds more options of "arbor-nb serve".

  -h, --help   this text`

export async function run(argv: readonly string[]): Promise<number> {
  parseOptions(argv, {})
  process.stdout.write(`${join(packageInfo().root, 'src', 'python')}\n`)
  return 0
}
