import { describe, expect, it } from 'vitest'
import { ArborError } from '../errors'
import { renderChat } from './chat-template'

const model = (chatTemplate: string | null) => ({ chatTemplate, namedTokens: { bos_token: '<s>', eos_token: '</s>' } })
const question = [{ role: 'user', content: 'Hi' }]

describe('renderChat', () => {
  it('a model without a template gets ChatML', () => {
    const messages = [{ role: 'system', content: 'Be brief.' }, ...question]
    const text = '<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n'
    expect(renderChat(model(null), messages)).toBe(text + '<|im_start|>assistant\n')
    expect(renderChat(model(null), messages, { addGenerationPrompt: false })).toBe(text)
  })

  it('a template sees the named tokens and the fields of a message', () => {
    const source =
      "{{ bos_token }}{% for m in messages %}[{{ m.role }}{{ m.name }}] {{ m['content'] }}{{ eos_token }}{% endfor %}"
    expect(renderChat(model(source), question)).toBe('<s>[user] Hi</s>')
  })

  it("tags on lines of their own leave no blank lines, as in transformers' environment", () => {
    const source = '{% for m in messages %}\n  {% if m.role == "user" %}\n{{ m.content }}\n  {% endif %}\n{% endfor %}\nend'
    expect(renderChat(model(source), question)).toBe('Hi\nend')
  })

  it('a template that refuses is an error with its words and the roles', () => {
    const source = "{{ raise_exception('Roles must alternate') }}"
    expect(() => renderChat(model(source), [...question, ...question])).toThrow(ArborError)
    expect(() => renderChat(model(source), [...question, ...question])).toThrow(/\(roles: user, user\): Roles must alternate/)
    expect(() => renderChat(model('{% for %}'), question)).toThrow(/chat template refuses/)
  })
})
