// The policies that an engine holds open, by name. A name that is not among them is answered with those that are.

import { ArborError, nearestName } from '../errors'
import type { EngineStatus } from './engine'
import type { PolicyWeights } from './policy-weights'

export class OpenPolicies {
  readonly #policies = new Map<string, PolicyWeights>()

  /** As they are now, in the order they were opened. */
  all(): Iterable<PolicyWeights> {
    return this.#policies.values()
  }

  get status(): EngineStatus['policies'] {
    return [...this.#policies].map(([name, { policyVersion }]) => ({ name, policyVersion }))
  }

  /** Nothing is opened under a name that is taken. */
  async open(name: string, open: () => Promise<PolicyWeights>): Promise<PolicyWeights> {
    if (this.#policies.has(name)) throw new ArborError(`Policy "${name}" is open already. Close it first or take another name.`)
    const weights = await open()
    this.#policies.set(name, weights)
    return weights
  }

  /** Throws ArborError for a name that is not open. */
  get(name: string): PolicyWeights {
    const weights = this.#policies.get(name)
    if (weights) return weights
    const near = nearestName(name, this.#policies.keys())
    const known = this.#policies.size === 0 ? 'None is open.' : `Open: ${[...this.#policies.keys()].join(', ')}.`
    throw new ArborError(`There is no policy "${name}".${near ? ` Did you mean "${near}"?` : ''} ${known}`, {
      code: 'unknown_policy',
    })
  }

  /** One that may be trained and saved. */
  trainable(name: string): PolicyWeights {
    const weights = this.get(name)
    if (!weights.frozen) return weights
    throw new ArborError(`Policy "${name}" was opened to be asked only (openSaved). Open it with openPolicy to train or save it.`)
  }

  /** Takes a policy out of the list; its weights are the caller's to close. */
  remove(name: string): PolicyWeights {
    const weights = this.get(name)
    this.#policies.delete(name)
    return weights
  }

  /** Frees them all; the list is empty then. */
  closeAll(): void {
    for (const weights of this.#policies.values()) weights.close()
    this.#policies.clear()
  }
}
