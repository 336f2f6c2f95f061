// A chart of one's own that changes while a cell runs.

import type { Figure } from './figure'
import type { DisplayHost } from './mime'
import { Pace } from './pace'
import { Slots } from './slots'

export interface LiveChart {
  /** Shows `figure` in place of the one before. Called more often than five times a second, the newest wins and the last is always drawn. */
  update(figure: Figure): void
  /** The chart is done: shows its last figure with all that a saved notebook needs. */
  end(): void
}

/**
 * An output under the running cell whose chart can be replaced.
 * @example const chart = plot.liveChart(); for await (const point of points) chart.update(plot.curves([...])); chart.end()
 */
export function liveChart({ host }: { readonly host?: DisplayHost | null } = {}): LiveChart {
  const slots = new Slots('chart', host)
  let newest: Figure | null = null
  let live = true
  const pace = new Pace(() => newest && slots.chart('chart', newest, live))
  return {
    update(figure) {
      newest = figure
      pace.ask()
    },
    end() {
      live = false
      pace.end()
    },
  }
}
