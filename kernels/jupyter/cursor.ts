// Jupyter counts characters as Python does (code points), JavaScript as UTF-16 units; they part after the first emoji.

/** UTF-16 offset of the code point at `position`. */
export function toUnits(text: string, position: number): number {
  let units = 0
  for (let points = 0; points < position && units < text.length; points++) units += text.codePointAt(units)! > 0xffff ? 2 : 1
  return units
}

/** The number of code points before UTF-16 offset `units`. */
export function toPoints(text: string, units: number): number {
  return [...text.slice(0, units)].length
}
