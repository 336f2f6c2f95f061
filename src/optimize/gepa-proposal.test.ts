import { describe, expect, it } from 'vitest'
import { readInstruction, reflectionPrompt } from './gepa-proposal'

describe('the question to the reflection model', () => {
  it('holds the instruction and every example under headings', () => {
    const prompt = reflectionPrompt('Cost: $& <side_info>', [
      { Inputs: { question: ' 1 + 1? ' }, 'Generated Outputs': { answer: '3' }, Feedback: 'It is 2.' },
      { Inputs: {}, 'Generated Outputs': 'no fields', Feedback: 'Follow the format.' },
    ])
    expect(prompt).toContain(
      '# Example 1\n## Inputs\n### question\n1 + 1?\n\n## Generated Outputs\n### answer\n3\n\n## Feedback\nIt is 2.\n\n\n\n# Example 2\n## Inputs\n\n## Generated Outputs\nno fields\n\n## Feedback\nFollow the format.\n\n',
    )
    expect(prompt).toContain('```\nCost: $& # Example 1') // as in the gepa package, a placeholder in an instruction is filled in as well
  })
})

describe('the answer', () => {
  it.each([
    ['Here:\n```\nDo this.\n```\nDone.', 'Do this.'],
    ['```text\nDo this.\n```', 'Do this.'],
    ['```\nRun ```x``` first.\n```', 'Run ```x``` first.'],
    ['no fences at all ', 'no fences at all'],
    ['```markdown\ncut off', 'cut off'],
    ['Do this.\n```', 'Do this.'],
    ['', ''],
  ])('%j holds the instruction %j', (answer, instruction) => {
    expect(readInstruction(answer)).toBe(instruction)
  })
})
