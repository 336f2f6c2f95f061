import { describe, expect, it } from 'vitest'
import type { DocumentKind } from './batches'
import { documentSequences, heldOutBatch, meanCrossEntropy, stepBatch, stepDocuments } from './batches'
import { trainBpe } from './bpe'
import { BpeEncoder } from './encoder'
import { SPECIAL_TOKENS } from './tokenizer-files'
import { countWords } from './words'

const texts = ['system\nAnswer the question.', 'user\nWhat is 2 + 3?', 'assistant\nLet me recall. It is 5.']
const encoder = new BpeEncoder(trainBpe(countWords(texts), { vocab: 290, specials: SPECIAL_TOKENS }))
const system = { role: 'system', content: 'Answer the question.' }

/** The document's number stands in its question. */
function documents(index: number, kind: DocumentKind) {
  const turn = (question: string) => [
    { role: 'user', content: question },
    { role: 'assistant', content: 'It is 5.' },
  ]
  return { messages: [system, ...(kind === 'demos' ? turn('What is 2 + 3?') : []), ...turn(`${kind} ${index}`)] }
}

const chatMl = (messages: readonly { role: string; content: string }[]) =>
  messages.map(({ role, content }) => `<|im_start|>${role}\n${content}<|im_end|>\n`).join('')

describe('sequences of a document', () => {
  it('has one for each assistant turn: the prompt as a server would encode it, the turn through its end', () => {
    const { messages } = documents(7, 'demos')
    const sequences = documentSequences(messages, encoder)
    expect(sequences).toEqual([
      {
        prompt: encoder.encode(`${chatMl(messages.slice(0, 2))}<|im_start|>assistant\n`),
        completion: encoder.encode('It is 5.<|im_end|>\n'),
      },
      {
        prompt: encoder.encode(`${chatMl(messages.slice(0, 4))}<|im_start|>assistant\n`),
        completion: encoder.encode('It is 5.<|im_end|>\n'),
      },
    ])
  })

  it('joined they are the whole transcript', () => {
    const { messages } = documents(1, 'demos')
    const last = documentSequences(messages, encoder).at(-1)!
    expect([...last.prompt, ...last.completion]).toEqual(encoder.encode(chatMl(messages)))
  })
})

describe('batches', () => {
  it('takes documents in order without gaps or repeats, every fourth step half as many with demonstrations', () => {
    const seen = { single: [] as number[], demos: [] as number[] }
    for (let step = 0; step < 9; step++) {
      const { kind, first, count } = stepDocuments(step, 6)
      expect(kind).toBe(step % 4 === 3 ? 'demos' : 'single')
      expect(count).toBe(kind === 'demos' ? 3 : 6)
      for (let i = 0; i < count; i++) seen[kind].push(first + i)
    }
    expect(seen.single).toEqual(Array.from({ length: 7 * 6 }, (_, i) => i))
    expect(seen.demos).toEqual(Array.from({ length: 2 * 3 }, (_, i) => i))
  })

  it('weighs every assistant token alike, and all together -1', () => {
    const batch = stepBatch(3, 6, { documents, encoder })
    expect(batch.sequences).toHaveLength(6) // 3 documents of 2 turns
    expect(batch.trainedTokens).toBe(6 * encoder.encode('It is 5.<|im_end|>\n').length)
    const { dLogprobs } = meanCrossEntropy(batch)
    expect(dLogprobs).toHaveLength(batch.trainedTokens)
    expect(new Set(dLogprobs).size).toBe(1)
    expect(dLogprobs.reduce((sum, weight) => sum + weight, 0)).toBeCloseTo(-1, 5)
  })

  it('measures on documents that no step trains on', () => {
    const trained = stepBatch(0, 4, { documents, encoder }).sequences.map(({ prompt }) => prompt.join())
    const heldOut = heldOutBatch(4, { documents, encoder }).sequences
    expect(heldOut).toHaveLength(4 + 2)
    for (const { prompt } of heldOut) expect(trained).not.toContain(prompt.join())
  })
})
