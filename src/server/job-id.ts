// Names of jobs: <kind>:<model>:<run name or two words>:<YYYYMMDD>, each used once.

import { randomInt } from 'node:crypto'

const ADJECTIVES =
  'able agile amber bold brave brisk calm clear clever cosy crisp deep eager early fair fresh gentle glad golden happy keen kind light lively lucky mellow merry mild neat noble quick quiet rapid ready rosy sharp silver smart soft steady sunny swift tidy vivid warm wise young'.split(
    ' ',
  )
const NOUNS =
  'acorn badger beaver birch brook cedar crane dune elm falcon fern finch fjord fox grove hare harbor hazel heron ibis ivy jay lake lark lynx maple marten meadow moss oak orchid otter owl pine plover pond poplar raven reed river robin sparrow spruce stone swan tern thrush willow wren yew'.split(
    ' ',
  )

/** @param taken tells whether an id is in use, in this process or on disk */
export function newJobId(
  { kind, model, runName }: { kind: 'grpo' | 'ftjob'; model: string; runName: string | null },
  taken: (id: string) => boolean,
): string {
  const slug = modelSlug(model)
  const day = new Date().toISOString().slice(0, 10).replaceAll('-', '')
  for (let attempt = 1; ; attempt++) {
    const name = runName === null ? `${pick(ADJECTIVES)}-${pick(NOUNS)}` : attempt === 1 ? runName : `${runName}-${attempt}`
    const id = `${kind}:${slug}:${name}:${day}`
    if (!taken(id)) return id
  }
}

/** The last part of a model's path, in lower case and with nothing in it that a file name could not hold. */
export function modelSlug(model: string): string {
  const last = model.replace(/\/+$/, '').split('/').at(-1)!.toLowerCase()
  return last.replace(/[^a-z0-9._-]+/g, '-').replace(/^[^a-z0-9]+/, '') || 'model'
}

function pick(words: readonly string[]): string {
  return words[randomInt(words.length)]!
}
