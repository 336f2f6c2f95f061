// A pack that is laid out when its rows are first asked for: while a device computes the packs before it.

import type { Pack } from './prefix-tree'

export class LaterPack implements Pack {
  private laid: Pack | null = null

  constructor(
    readonly tokens: number,
    readonly firstSlot: number,
    private readonly layOut: () => Pack,
  ) {}

  get ids(): Int32Array {
    return this.pack.ids
  }

  get positions(): Int32Array {
    return this.pack.positions
  }

  get segments(): Int32Array {
    return this.pack.segments
  }

  get context(): Int32Array {
    return this.pack.context
  }

  get liveStart(): number {
    return this.pack.liveStart
  }

  get rows(): Int32Array {
    return this.pack.rows
  }

  get targets(): Int32Array {
    return this.pack.targets
  }

  get places(): Int32Array {
    return this.pack.places
  }

  private get pack(): Pack {
    return (this.laid ??= this.layOut())
  }
}
