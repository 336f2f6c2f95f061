// What the server sampled, kept so that the very tokens can be trained: found by completion id, else by exact text.

import { totalmem } from 'node:os'

/** One sampled completion with all that training asks of it. */
export interface StoredCompletion {
  /** `${response id}#${choice index}` */
  readonly id: string
  /** The policy that sampled it; null = the base. */
  readonly policy: string | null
  readonly policyVersion: number
  readonly prompt: readonly number[]
  readonly tokens: readonly number[]
  /** Behaviour policy's logprobs at `temperature`, full vocabulary, one a token. */
  readonly logprobs: readonly number[]
  /** Temperature of the stored logprobs. */
  readonly temperature: number
  readonly text: string
  /** Ended by the token limit. */
  readonly truncated: boolean
  /** Sampled under top-k, top-p, min-p, a penalty or greedily: the stored logprobs are not those it was drawn with. */
  readonly altered: boolean
  /** Sampled along a grammar: only tokens that it allows could come. */
  readonly constrained: boolean
}

/** Of this machine's memory, and never less than it takes to keep the rollouts of some large steps. */
const SHARE = 1 / 1024
const LEAST_BYTES = 32 * 1024 ** 2
/** Strings, lists and the two maps around one completion, measured. */
const ENTRY_BYTES = 600

/** Bounded in memory; the completions used longest ago leave first. */
export class CompletionStore {
  private readonly byId = new Map<string, StoredCompletion>() // in order of use
  private readonly byText = new Map<string, Set<string>>() // text → ids, oldest first
  /** How many completions hold a prompt: those of a group, and of all who ask the same, hold one list. */
  private readonly prompts = new Map<readonly number[], number>()
  private bytes = 0

  /** @param maxBytes default: a thousandth of the machine's memory, at least 32 MiB */
  constructor(private readonly maxBytes = Math.max(LEAST_BYTES, totalmem() * SHARE)) {}

  get size(): number {
    return this.byId.size
  }

  add(completion: StoredCompletion): void {
    this.remove(completion.id)
    this.byId.set(completion.id, completion)
    const ids = this.byText.get(completion.text) ?? new Set()
    this.byText.set(completion.text, ids.add(completion.id))
    this.bytes += ownBytes(completion) + this.holdPrompt(completion.prompt, 1)
    for (const [id] of this.byId) {
      if (this.bytes <= this.maxBytes || this.byId.size === 1) break
      this.remove(id)
    }
  }

  get(id: string): StoredCompletion | null {
    const found = this.byId.get(id)
    if (!found) return null
    this.byId.delete(id)
    this.byId.set(id, found)
    return found
  }

  /** The newest completion with exactly this text: one of this prompt if there is one, else of any prompt of the policy. */
  findText(text: string, prompt: readonly number[], policy: string): StoredCompletion | null {
    let best: StoredCompletion | null = null
    for (const id of this.byText.get(text) ?? []) {
      const found = this.byId.get(id)!
      if (sameTokens(found.prompt, prompt)) best = found
      else if (found.policy === policy && !(best && sameTokens(best.prompt, prompt))) best = found
    }
    return best
  }

  /** `policy` went back to `version`: what it sampled since is of no version that will come, though later ones bear the same numbers. */
  wentBack(policy: string, version: number): void {
    for (const [id, completion] of this.byId)
      if (completion.policy === policy && completion.policyVersion > version)
        this.byId.set(id, { ...completion, policyVersion: -1 })
  }

  private remove(id: string): void {
    const found = this.byId.get(id)
    if (!found) return
    this.byId.delete(id)
    this.bytes -= ownBytes(found) + this.holdPrompt(found.prompt, -1)
    const ids = this.byText.get(found.text)!
    ids.delete(id)
    if (ids.size === 0) this.byText.delete(found.text)
  }

  /** One more or less holds this prompt; answers what that takes or frees. */
  private holdPrompt(prompt: readonly number[], change: 1 | -1): number {
    const holders = (this.prompts.get(prompt) ?? 0) + change
    if (holders > 0) this.prompts.set(prompt, holders)
    else this.prompts.delete(prompt)
    const first = change > 0 ? holders === 1 : holders === 0
    return first ? 8 * prompt.length : 0
  }
}

export function sameTokens(a: readonly number[], b: readonly number[]): boolean {
  if (a === b) return true // prompts of one text are one list
  return a.length === b.length && a.every((token, i) => token === b[i])
}

/** A token and its logprob are 16 bytes. */
function ownBytes({ tokens, text }: StoredCompletion): number {
  return ENTRY_BYTES + 16 * tokens.length + text.length
}
