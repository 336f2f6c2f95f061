// The numbers are those that numpy 2.4 draws from the same seeds.
import { expect, it } from 'vitest'
import { NumpyRandom } from './numpy-random'

it('draws what numpy.random.default_rng draws', () => {
  const random = new NumpyRandom(0)
  expect([random.random(), random.random()]).toEqual([0.6369616873214543, 0.2697867137638703])
  expect([0, 0.5, 2, 2, 9.9, 10, 40, 200].map((lam) => random.poisson(lam))).toEqual([0, 0, 0, 7, 8, 6, 43, 206])
})

it('takes seeds of any size', () => {
  const random = new NumpyRandom(12345678901234567890123n)
  expect(random.random()).toBe(0.9015032973944714)
  expect([1, 1, 1, 16].map((lam) => random.poisson(lam))).toEqual([0, 0, 1, 21])
})

it('refuses seeds and means that numpy refuses', () => {
  expect(() => new NumpyRandom(-1)).toThrow('The seed is -1; it must be a whole number from 0 on.')
  expect(() => new NumpyRandom(0).poisson(-0.5)).toThrow('poisson(-0.5)')
})
