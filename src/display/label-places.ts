// On which side of its point each label stands, so that labels cover neither points nor each other.

/** A point in shares of the plotting area, y upward, with its interval and its label. */
export interface LabelledPoint {
  readonly label: string
  readonly x: number
  readonly y: number
  readonly low: number
  readonly high: number
}

export type LabelPlace = `${'top' | 'middle' | 'bottom'} ${'left' | 'center' | 'right'}`

interface Box {
  readonly left: number
  readonly right: number
  readonly bottom: number
  readonly top: number
}

/** In the order of preference. */
const PLACES: readonly LabelPlace[] = [
  'middle right',
  'middle left',
  'bottom right',
  'top right',
  'bottom left',
  'top left',
  'top center',
  'bottom center',
]
/** The size that a page of usual width gives a chart: pixels of the plotting area, of a letter, of a line, and beside a point. */
const [WIDTH, HEIGHT, LETTER, LINE, GAP] = [740, 318, 7.3, 15, 8]

/** A place for each label, one after the other: the first place that is free, or else the one with the least under it. */
export function spreadLabels(points: readonly LabelledPoint[]): LabelPlace[] {
  const taken: Box[] = points.map(({ x, low, high }) => ({
    left: x * WIDTH - GAP / 2,
    right: x * WIDTH + GAP / 2,
    bottom: low * HEIGHT - GAP / 2,
    top: high * HEIGHT + GAP / 2,
  }))
  return points.map((point) => {
    const tried = PLACES.map((place) => {
      const box = boxOf(point, place)
      return { place, box, covered: outside(box) + taken.reduce((sum, other) => sum + overlap(box, other), 0) }
    })
    const best = tried.reduce((one, other) => (other.covered < one.covered ? other : one))
    taken.push(best.box)
    return best.place
  })
}

function boxOf({ label, x, y }: LabelledPoint, place: LabelPlace): Box {
  const [row, column] = place.split(' ') as ['top' | 'middle' | 'bottom', 'left' | 'center' | 'right']
  const width = label.length * LETTER
  const middle = x * WIDTH + { left: -GAP - width / 2, center: 0, right: GAP + width / 2 }[column]
  const height = y * HEIGHT + { top: GAP + LINE / 2, middle: 0, bottom: -GAP - LINE / 2 }[row]
  return { left: middle - width / 2, right: middle + width / 2, bottom: height - LINE / 2, top: height + LINE / 2 }
}

function overlap(a: Box, b: Box): number {
  const across = Math.min(a.right, b.right) - Math.max(a.left, b.left)
  const along = Math.min(a.top, b.top) - Math.max(a.bottom, b.bottom)
  return across > 0 && along > 0 ? across * along : 0
}

/** How much of the box lies beside the plotting area; its margins hold a little. */
function outside(box: Box): number {
  const whole = (box.right - box.left) * (box.top - box.bottom)
  return whole - overlap(box, { left: -10, right: WIDTH + 16, bottom: 0, top: HEIGHT + 10 })
}
