// The group of a backend whose device can't sum with others: itself.

import { BackendError } from '../../errors'
import type { DeviceGroup } from './ops'

/** `what` names the backend in the error for those who want more. */
export function loneGroup(what: string): DeviceGroup {
  return {
    joined: false,
    id: () => new Uint8Array(GROUP_ID_BYTES),
    async join({ ranks }) {
      if (ranks > 1) throw new BackendError(`${what} is one device; it can't sum with ${ranks - 1} others.`, { op: 'group_join' })
    },
    async sum() {}, // of one
    leave() {},
  }
}

export const GROUP_ID_BYTES = 128
