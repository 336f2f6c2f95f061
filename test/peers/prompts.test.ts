// The prompt that our program layer writes is dspy's, byte for byte, and the tokens that our server reads are transformers'.

import { beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { ChatAdapter } from '../../src/program'
import type { Message } from '../../src/protocol'
import { renderChat } from '../../src/server/chat-template'
import { loadTokenizer } from '../../src/server/tokenizer'
import { demoSets, MODEL_NAME, modelFolder, PROGRAMS, type ProgramName, predictorOf, testRows } from './data'
import { noPeers, python, SLOW } from './python'

interface Prompt {
  readonly program: ProgramName
  readonly demos: string
  readonly question: string
  readonly messages: Message[]
  /** Token ids of transformers' chat template with the generation prompt. */
  readonly ids: readonly number[]
}

const missing = noPeers()
beforeEach(({ skip }) => skip(missing !== null, missing ?? ''))

const QUESTIONS = 50
let theirs: Prompt[]
let ours: Prompt[]
beforeAll(async () => {
  if (missing !== null) return
  const questions = (await testRows(QUESTIONS)).map((row) => row.question)
  const demos = await demoSets()
  theirs = await python<Prompt[]>('prompts.py', { model: modelFolder(), questions, demos })
  const tokenizer = await loadTokenizer({ name: MODEL_NAME, kind: 'folder', path: modelFolder() })
  const adapter = new ChatAdapter()
  ours = PROGRAMS.flatMap((program) =>
    Object.entries(demos).flatMap(([name, rows]) =>
      questions.map((question) => {
        const messages = adapter.format(predictorOf(program).signature, rows, { question })
        const ids = tokenizer.encode(renderChat(tokenizer, messages, { addGenerationPrompt: true }))
        return { program, demos: name, question, messages, ids }
      }),
    ),
  )
}, SLOW)

describe.each(PROGRAMS)('dspy.%s', (program) => {
  it.each(['none', 'one', 'three', 'partly'])('with demos: %s', (demos) => {
    const of = (prompts: readonly Prompt[]) => prompts.filter((prompt) => prompt.program === program && prompt.demos === demos)
    const [wanted, got] = [of(theirs), of(ours)]
    expect(new Set(wanted.map((prompt) => prompt.question)).size).toBe(QUESTIONS)
    expect(got.map((prompt) => prompt.messages)).toEqual(wanted.map((prompt) => prompt.messages))
    expect(got.map((prompt) => prompt.ids)).toEqual(wanted.map((prompt) => prompt.ids))
  })
})
