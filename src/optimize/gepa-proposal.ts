// What GEPA asks its reflection model, and how it reads the answer. The words are those of gepa/strategies/instruction_proposal.py.

import { pyStr, strip } from '../program/python-text'

/** One run of a predictor as the reflection model sees it. */
export interface ReflectiveExample {
  readonly Inputs: Readonly<Record<string, string>>
  /** The fields; the raw text where it could not be read. */
  readonly 'Generated Outputs': Readonly<Record<string, string>> | string
  readonly Feedback: string
}

const FENCE = '```'

const TEMPLATE = `I provided an assistant with the following instructions to perform a task for me:
${FENCE}
<curr_param>
${FENCE}

The following are examples of different task inputs provided to the assistant along with the assistant's response for each of them, and some feedback on how the assistant's response could be better:
${FENCE}
<side_info>
${FENCE}

Your task is to write a new instruction for the assistant.

Read the inputs carefully and identify the input format and infer detailed task description about the task I wish to solve with the assistant.

Read all the assistant responses and the corresponding feedback. Identify all niche and domain specific factual information about the task and include it in the instruction, as a lot of it may not be available to the assistant in the future. The assistant may have utilized a generalizable strategy to solve the task, if so, include that in the instruction as well.

Provide the new instructions within ${FENCE} blocks.`

/** The question for a better instruction. */
export function reflectionPrompt(instruction: string, examples: readonly ReflectiveExample[]): string {
  const shown = examples.map((example, i) => {
    const sections = Object.entries(example).map(([title, value]) => `## ${title}\n${markdown(value, 3)}`)
    return `# Example ${i + 1}\n${sections.join('')}`
  })
  return TEMPLATE.replaceAll('<curr_param>', () => instruction).replaceAll('<side_info>', () => shown.join('\n\n'))
}

/** A value under its heading: records and lists open headings one level deeper, up to six. */
function markdown(value: unknown, level: number): string {
  if (typeof value !== 'object' || value === null) return `${strip(pyStr(value))}\n\n`
  const parts: [string, unknown][] = Array.isArray(value)
    ? value.map((item, i) => [`Item ${i + 1}`, item])
    : Object.entries(value)
  if (parts.length === 0) return '\n'
  return parts.map(([title, item]) => `${'#'.repeat(level)} ${title}\n${markdown(item, Math.min(level + 1, 6))}`).join('')
}

/** The instruction in an answer: what stands between the first and the last fence, else all of it without a lone fence. */
export function readInstruction(answer: string): string {
  const start = answer.indexOf(FENCE) + FENCE.length
  const end = answer.lastIndexOf(FENCE)
  if (start < end) return strip(answer.slice(start, end).replace(/^\S*\n/, ''))
  const text = strip(answer)
  if (text.startsWith(FENCE)) return answer.startsWith(FENCE) ? strip(answer.replace(/^```\S*\n?/, '')) : text
  return text.endsWith(FENCE) ? strip(text.slice(0, -FENCE.length)) : text
}
