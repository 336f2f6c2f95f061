// From a posted sample to the tokens that are trained.

import { describe, expect, it } from 'vitest'
import type { StepSample } from '../protocol'
import { CompletionStore, type StoredCompletion } from './completion-store'
import { byteCodec } from './fixture'
import { trainingRows } from './training-rows'

const messages = [{ role: 'user', content: 'q' }]
const prompt = byteCodec.encode(byteCodec.render(messages, { addGenerationPrompt: true }))

function stored(id: string, more: Partial<StoredCompletion> = {}): StoredCompletion {
  const tokens = [...byteCodec.encode('answer'), 257]
  const facts = {
    policy: 'job',
    policyVersion: 3,
    temperature: 1,
    text: 'answer',
    truncated: false,
    altered: false,
    constrained: false,
  }
  return { id, prompt, tokens, logprobs: tokens.map(() => -1), ...facts, ...more }
}

function rows(sample: Partial<StepSample>, ...completions: StoredCompletion[]) {
  const store = new CompletionStore()
  for (const completion of completions) store.add(completion)
  const whole: StepSample = { messages, completion: { role: 'assistant', content: 'answer' }, reward: 1, ...sample }
  return trainingRows([whole], { codec: byteCodec, completions: store, policy: 'job', temperature: 1, onBase: true })[0]!
}

describe('a sample becomes a row', () => {
  it('by its id: the sampled tokens with their logprobs, whatever the text says', () => {
    const cut = [1, 2, 3]
    const row = rows({ completion_id: 'c#0' }, stored('c#0', { tokens: cut, logprobs: [-1, -2, -3], truncated: true }))
    expect(row).toMatchObject({ source: 'id', completion: cut, prompt, truncated: true, otherPrompt: false })
    expect(row.stored).toEqual({ logprobs: [-1, -2, -3], policyVersion: 3, altered: false, constrained: false })
  })

  it('by its id under another prompt: the demos are left out, so the stored logprobs are not those of the row', () => {
    const row = rows({ completion_id: 'c#0' }, stored('c#0', { prompt: [9, 9, ...prompt] }))
    expect(row).toMatchObject({ source: 'id', prompt, otherPrompt: true, stored: null })
    expect(row.completion).toHaveLength(7)
  })

  it('by its exact text: one of the same prompt before a newer one of another', () => {
    const same = stored('a#0', { policyVersion: 1 })
    const other = stored('b#0', { prompt: [5], policyVersion: 2 })
    expect(rows({}, same, other)).toMatchObject({ source: 'text', stored: { policyVersion: 1 } })
    expect(rows({}, other)).toMatchObject({ source: 'text', otherPrompt: true, stored: null })
    expect(rows({}, stored('c#0', { prompt: [5], policy: 'another job' }))).toMatchObject({ source: 'tokenized' })
  })

  it('tokenized, with the end of the turn and without what the template writes behind it', () => {
    expect(rows({ completion_id: 'gone#0' })).toMatchObject({
      source: 'tokenized',
      completion: [...byteCodec.encode('answer'), 257],
      stored: null,
      truncated: false,
    })
  })

  it('without stored logprobs where they are of another temperature or another policy', () => {
    expect(rows({ completion_id: 'c#0' }, stored('c#0', { temperature: 0.7 })).stored).toBeNull()
    expect(rows({ completion_id: 'c#0' }, stored('c#0', { policy: 'another job' })).stored).toBeNull()
    expect(rows({ completion_id: 'c#0' }, stored('c#0', { policy: null, policyVersion: 0 })).stored).toMatchObject({
      policyVersion: 0,
    })
  })
})

describe('the completion store', () => {
  it('forgets what was used longest ago when it is full', () => {
    const one = 600 + 16 * stored('a').tokens.length + 'answer'.length
    const store = new CompletionStore(3 * one + 8 * prompt.length) // the prompt is held once
    for (const id of ['a', 'b', 'c']) store.add(stored(id))
    store.get('a')
    store.add(stored('d'))
    expect(['a', 'b', 'c', 'd'].map((id) => store.get(id) !== null)).toEqual([true, false, true, true])
    store.add(stored('huge', { prompt: new Array(9999).fill(0), text: 'huge' }))
    expect([store.size, store.findText('answer', prompt, 'job')]).toEqual([1, null])
  })
})
