// arbor-nb export MODEL --out PATH: a trained policy, or a base, as files for other programs.

import { arborHome } from '../engine/arbor-home'
import { GGUF_TYPES } from '../engine/gguf-encode'
import { OptionError } from '../errors'
import { EXPORT_FORMATS, type ExportFormat, type ExportResult, exportPolicy } from '../export/export-policy'
import { findExportSource } from '../export/source'
import { choiceOption, numberOption, parseOptions } from './options'
import { logLine, progressReporter } from './progress'

export const help = `Usage: arbor-nb export MODEL --out PATH [options]

Writes a policy for other programs: a merged model folder (transformers, vLLM), a GGUF file (llama.cpp, Ollama), or a LoRA adapter as peft
has it. What was written is loaded again and compared, logit by logit, with the policy; files that are not the policy are removed.

  MODEL           a job (grpo:… or ftjob:…: its last checkpoint), JOB@best, JOB@CHECKPOINT, the folder of a checkpoint or of an adapter
                  that peft wrote, or a base model
  --out PATH      a folder, or a file that ends in .gguf
  --format F      safetensors, gguf or adapter (default: gguf where PATH ends in .gguf, else safetensors)
  --adapter       the same as --format adapter: adapter_config.json and adapter_model.safetensors alone
  --dtype TYPE    of the matrices: f32, f16, bf16, and in a GGUF file q8_0 (default: f32, which loses nothing)
  --base MODEL    what the adapter stands on (default: what the run or adapter_config.json says)
  --storage DIR   where runs are kept (default: $ARBOR_HOME, else ~/.arbor)
  --shard-gb N    largest file of a model folder, in GB (default 5)
  --device D      for the comparison: cpu, cuda, tfjs or auto (default: $ARBOR_DEVICE, else auto)
  --force         take the place of what lies at PATH
  -h, --help      this text

Examples:
  arbor-nb export grpo:arbor-tiny:calm-fox:20261122@best --out policy.gguf --dtype q8_0
  arbor-nb export grpo:arbor-tiny:calm-fox:20261122 --out adapter --adapter`

const OPTIONS = {
  out: { type: 'string' },
  format: { type: 'string' },
  adapter: { type: 'boolean' },
  dtype: { type: 'string' },
  base: { type: 'string' },
  storage: { type: 'string' },
  'shard-gb': { type: 'string' },
  device: { type: 'string' },
  force: { type: 'boolean' },
} as const

type Values = ReturnType<typeof parseOptions<typeof OPTIONS>>['values']

export async function run(argv: readonly string[]): Promise<number> {
  const { values, positionals } = parseOptions(argv, OPTIONS, ['MODEL'])
  if (values.out === undefined) throw new OptionError('--out is missing: a folder, or a file that ends in .gguf.')
  const out = values.out
  const format = formatOf(values, out)
  const type = choiceOption(values.dtype ?? 'f32', '--dtype', GGUF_TYPES)
  if (format === 'adapter' && values.dtype !== undefined)
    throw new OptionError('An adapter is written as it was trained: leave --dtype out.')
  const shard = numberOption(values['shard-gb'], '--shard-gb', { min: 0.001 })
  const device = choiceOption(values.device ?? 'auto', '--device', ['auto', 'cpu', 'cuda', 'tfjs'])
  const source = await findExportSource(positionals[0]!, {
    storage: values.storage ?? arborHome(),
    ...(values.base === undefined ? {} : { base: values.base }),
    log: logLine,
    progress: progressReporter(),
  })
  const given = { source, out, format, type, device, force: values.force === true, log: logLine }
  const result = await exportPolicy({ ...given, ...(shard === undefined ? {} : { shardBytes: shard * 1e9 }) })
  for (const line of report(result)) logLine(line)
  process.stdout.write(`${out}\n`)
  return 0
}

function formatOf({ format, adapter }: Values, out: string): ExportFormat {
  if (adapter && format !== undefined && format !== 'adapter')
    throw new OptionError(`--adapter and --format ${format} can't both be meant.`)
  if (adapter) return 'adapter'
  if (format !== undefined) return choiceOption(format, '--format', EXPORT_FORMATS)
  return out.endsWith('.gguf') ? 'gguf' : 'safetensors'
}

/** What the comparison found, in a person's words. */
export function report({ tokens, largestGap, meanKl, sameTop, prompts, sameAnswers, trainedKl }: ExportResult): string[] {
  const lines = [
    `Good: over ${tokens} tokens its logits are at most ${largestGap.toPrecision(2)} from the policy's (${meanKl.toPrecision(2)} nats a token); ` +
      `the likeliest token is the same at ${(100 * sameTop).toFixed(1)} %, and ${sameAnswers} of ${prompts} greedy answers are equal.`,
  ]
  // Training may have moved a policy less than a small type's rounding does: then the files hold little of it.
  if (trainedKl !== null && meanKl > trainedKl / 4)
    lines.push(
      `Note: training moved the policy ${trainedKl.toPrecision(2)} nats a token from its base, hardly more than the rounding of this type. --dtype f32 keeps all of it.`,
    )
  return lines
}
