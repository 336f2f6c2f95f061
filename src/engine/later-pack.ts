// A pack that is laid out when its rows are first asked for, while a device computes the packs before it, and what is predicted from them when that is
// asked for, while the device computes these rows.

import type { Pack } from './prefix-tree'

export type PackRows = Pick<Pack, 'ids' | 'positions' | 'segments' | 'context' | 'liveStart'>
export type PackPairs = Pick<Pack, 'rows' | 'targets' | 'places'>

export class LaterPack implements Pack {
  private laid: PackRows | null = null
  private listed: PackPairs | null = null

  constructor(
    readonly tokens: number,
    readonly firstSlot: number,
    private readonly make: { readonly layOut: () => PackRows; readonly list: (rows: PackRows) => PackPairs },
  ) {}

  get ids(): Int32Array {
    return this.layOut().ids
  }

  get positions(): Int32Array {
    return this.layOut().positions
  }

  get segments(): Int32Array {
    return this.layOut().segments
  }

  get context(): Int32Array {
    return this.layOut().context
  }

  get liveStart(): number {
    return this.layOut().liveStart
  }

  get rows(): Int32Array {
    return this.pairs.rows
  }

  get targets(): Int32Array {
    return this.pairs.targets
  }

  get places(): Int32Array {
    return this.pairs.places
  }

  /** Its rows, and so the slots that packs on top of it see. */
  layOut(): PackRows {
    return (this.laid ??= this.make.layOut())
  }

  private get pairs(): PackPairs {
    return (this.listed ??= this.make.list(this.layOut()))
  }
}
