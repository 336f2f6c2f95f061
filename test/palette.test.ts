// The page of the server can't import the charts' style, and has the same colours.
import { expect, it } from 'vitest'
import { BLUE, GREEN, GREY, ORANGE, RED, SCALE } from '../src/display/style'
import * as page from '../src/server/page/palette.js'

it('a reward is the same blue under a cell and on the page of the server', () => {
  const { BLUE: blue, GREEN: green, GREY: grey, ORANGE: orange, RED: red, SCALE: scale } = page
  expect([blue, green, grey, orange, red, scale]).toEqual([BLUE, GREEN, GREY, ORANGE, RED, SCALE])
})
