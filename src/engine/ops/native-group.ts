// A native stream's part in a group that sums tensors over several devices. The library never waits here, so this does, with limits:
// whatever becomes of the others, nobody hangs.

import { setTimeout as sleep, setImmediate as turn } from 'node:timers/promises'
import { BackendError } from '../../errors'
import { GROUP_ID_BYTES } from './lone-group'
import type { NativeValue } from './native-library'
import type { NativeTensor } from './native-tensor'
import type { DeviceGroup, GroupPlace, Tensor } from './ops'

export interface GroupLimits {
  /** NCCL has to start and find the others. */
  readonly joinSeconds: number
  /** All members come at the same time, and a sum takes milliseconds. */
  readonly sumSeconds: number
}

const LIMITS: GroupLimits = { joinSeconds: 120, sumSeconds: 60 }
/** As long the library is asked without a pause: a pause costs a millisecond. */
const EAGER_MS = 2

const BUSY = 1

export interface NativeGroupCalls {
  /** A call of the library on the open stream; negative answers become BackendError. */
  call(name: string, ...values: NativeValue[]): number
  /** Resolves when all that was enqueued before is done. */
  download(tensor: Tensor): Promise<unknown>
}

export class NativeGroup implements DeviceGroup {
  #joined = false

  constructor(
    private readonly calls: NativeGroupCalls,
    private readonly limits: GroupLimits = LIMITS,
  ) {}

  get joined(): boolean {
    return this.#joined
  }

  id(): Uint8Array {
    const id = new Uint8Array(GROUP_ID_BYTES)
    this.calls.call('arbor_group_id', id)
    return id
  }

  async join({ id, ranks, rank }: GroupPlace): Promise<void> {
    this.calls.call('arbor_group_join', id, ranks, rank)
    this.#joined = true
    await this.#settled('group_join', `GPU ${rank} of ${ranks} waited for the others`, this.limits.joinSeconds)
  }

  async sum(tensors: readonly Tensor[]): Promise<void> {
    if (tensors.length === 0) return
    const packed = Float64Array.from(
      tensors.flatMap((tensor) => [(tensor as NativeTensor).address, (tensor as NativeTensor).length]),
    )
    this.calls.call('arbor_group_sum', packed, tensors.length)
    await this.#settled('group_sum', 'a sum over the GPUs was not begun', this.limits.sumSeconds)
    let late = false
    const timer = setTimeout(() => {
      late = true
      this.leave()
    }, 1000 * this.limits.sumSeconds)
    try {
      await this.calls.download(tensors[0]!.rows(0, 0)) // ends also when the group was left: what was under way is given up then
    } finally {
      clearTimeout(timer)
    }
    if (late) throw stopped('group_sum', `a sum over the GPUs did not end within ${this.limits.sumSeconds} s`)
    if (!this.#joined) throw stopped('group_sum', 'a sum over the GPUs was given up')
  }

  leave(): void {
    if (!this.#joined) return
    this.#joined = false
    try {
      this.calls.call('arbor_group_leave')
    } catch {
      // A device that can't leave is gone, and its group with it; whoever asks it for anything else hears that.
    }
  }

  /** Waits until the library has done what it was asked for. Leaves the group where it can't, or isn't through in time. */
  async #settled(op: string, what: string, seconds: number): Promise<void> {
    for (const started = performance.now(); ; ) {
      if (!this.#joined) throw stopped(op, `${what}, and the group was given up`)
      const status = this.#status()
      if (status !== BUSY) return
      const waited = performance.now() - started
      if (waited > 1000 * seconds) {
        this.leave()
        throw stopped(op, `${what} for ${seconds} s`)
      }
      await (waited < EAGER_MS ? turn() : sleep(1))
    }
  }

  #status(): number {
    try {
      return this.calls.call('arbor_group_status')
    } catch (error) {
      this.leave()
      throw error
    }
  }
}

function stopped(op: string, what: string): BackendError {
  return new BackendError(`${what[0]!.toUpperCase()}${what.slice(1)}: another GPU failed or is gone.`, { op })
}
