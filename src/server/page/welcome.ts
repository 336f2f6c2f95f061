// What a person sees before the first job: that the server works, and how to begin.

import { copyButton } from './copy.js'
import { type Element_, h } from './dom.js'
import { state } from './state.js'

export function welcome(): Element_ {
  const base = new URL('v1/', document.baseURI).href
  const code = `const lm = new dspy.LM('openai/arbor:${state.health.at(-1)?.model ?? 'MODEL'}', {
  provider: new arbor.ArborProvider(),
  apiBase: '${base}',
  temperature: 1,
})
dspy.configure({ lm })

const compiler = new arbor.ArborGRPO({ metric, numTrainSteps: 100 })
await compiler.compile(program, { trainset })`
  return h(
    'section',
    { key: 'welcome', class: 'welcome' },
    h('h2', null, 'The server is ready'),
    h(
      'p',
      null,
      'No job trains yet. When a notebook compiles a program with this server, its rewards, its groups and what the model writes appear here.',
    ),
    h(
      'p',
      { class: 'path' },
      h('span', { class: 'muted' }, 'Address '),
      h('code', null, base),
      copyButton(base, 'Copy the address'),
    ),
    h('div', { class: 'snippet' }, h('pre', { tabindex: 0 }, code), copyButton(code, 'Copy the lines')),
  )
}
