// Messages to the text a chat model was trained on: the model's own Jinja template, or ChatML when it has none.

import { Template } from '@huggingface/jinja'
import { ArborError } from '../errors'
import type { Message } from '../protocol'
import type { Tokenizer } from './tokenizer'

const CHATML =
  "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}{% endfor %}" +
  "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"

/** Parsing a template costs more than filling it in. */
const parsed = new Map<string, Template>()

/**
 * The prompt text of a conversation. `addGenerationPrompt` (default true) ends it where the assistant's answer begins.
 * Some templates add a system message of their own when the conversation has none (SmolLM2's does); that is the model's business, so it stays.
 * Throws ArborError (code 'chat_template_error') with the template's own words when it refuses the messages.
 */
export function renderChat(
  tokenizer: Pick<Tokenizer, 'chatTemplate' | 'namedTokens'>,
  messages: readonly Message[],
  options: { addGenerationPrompt?: boolean } = {},
): string {
  try {
    return template(tokenizer.chatTemplate ?? CHATML).render({
      ...tokenizer.namedTokens,
      messages,
      add_generation_prompt: options.addGenerationPrompt ?? true,
    })
  } catch (cause) {
    const roles = messages.map((message) => message.role).join(', ')
    throw new ArborError(`The model's chat template refuses these messages (roles: ${roles}): ${(cause as Error).message}`, {
      code: 'chat_template_error',
      cause,
    })
  }
}

function template(source: string): Template {
  let found = parsed.get(source)
  if (!found) parsed.set(source, (found = new Template(source)))
  return found
}
