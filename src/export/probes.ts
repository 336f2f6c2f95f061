// What a policy and its written model are asked: a few conversations in the model's own template, as tokens.

import type { ModelSource } from '../engine/engine'
import { openModel } from '../engine/open-model'
import { ArborError, ModelError } from '../errors'
import type { Message } from '../protocol'
import { renderChat } from '../server/chat-template'
import { loadTokenizer, type Tokenizer } from '../server/tokenizer'

export interface Probes {
  readonly texts: readonly string[]
  readonly prompts: readonly (readonly number[])[]
  readonly stopTokenIds: readonly number[]
}

const CONVERSATIONS: readonly (readonly Message[])[] = [
  [{ role: 'user', content: 'What is the capital of France?' }],
  [{ role: 'user', content: 'Write the numbers 3.14, 1,000 and 27 in words.\n\nThen say "done": it\'s enough.' }],
  [
    { role: 'system', content: 'Answer in one word.' },
    { role: 'user', content: 'Which colour has the sky?' },
    { role: 'assistant', content: 'Blue.' },
    { role: 'user', content: 'And grass, trees, 東京 at naïve midnight?' },
  ],
  [{ role: 'user', content: 'def add(a, b):\n    return a + b\n\n# Explain this function.' }],
]

/** Room that a prompt leaves in the context for its answer. */
const ROOM = 40

export async function probesFor(model: ModelSource): Promise<Probes> {
  const tokenizer = await loadTokenizer(model)
  const { config, weights } = await openModel(model)
  weights.close()
  const texts = textsOf(tokenizer)
  const longest = Math.max(1, config.contextLength - ROOM)
  return {
    texts,
    prompts: texts.map((text) => tokenizer.encode(text).slice(-longest)),
    stopTokenIds: [...new Set([...tokenizer.eosTokenIds, ...config.eosTokenIds])],
  }
}

/** @throws ModelError when a written model's tokenizer or template makes other tokens of the same conversations */
export async function requireSameText(written: ModelSource, wanted: Probes): Promise<void> {
  const got = await probesFor(written)
  for (const [i, text] of wanted.texts.entries()) {
    if (got.texts[i] !== text)
      throw new ModelError(
        `Its chat template writes ${JSON.stringify(got.texts[i])} where the model's writes ${JSON.stringify(text)}.`,
      )
    if (String(got.prompts[i]) !== String(wanted.prompts[i]))
      throw new ModelError(`Its tokenizer makes other tokens of ${JSON.stringify(text)} than the model's.`)
  }
  const [ends, own] = [got, wanted].map(({ stopTokenIds }) => [...stopTokenIds].sort((a, b) => a - b).join(', '))
  if (ends !== own) throw new ModelError(`Its answers end at the tokens ${ends}; the model's at ${own}.`)
}

/** Some templates take no system message; what a model can't be told it is not asked. */
function textsOf(tokenizer: Tokenizer): string[] {
  const texts = CONVERSATIONS.flatMap((messages) => {
    try {
      return [renderChat(tokenizer, messages)]
    } catch (error) {
      if (error instanceof ArborError && error.code === 'chat_template_error') return []
      throw error
    }
  })
  return texts.length > 0 ? texts : CONVERSATIONS.map((messages) => messages.at(-1)!.content)
}
