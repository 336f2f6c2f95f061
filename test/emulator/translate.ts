// CUDA C++ into C++: a launch `kernel<<<grid, block, shared, stream>>>(arguments)` becomes a call, shared memory of a size known at the launch a
// pointer. All else that is CUDA's are macros and functions of include/.

/** The text of a .cu or .cuh file as a C++ compiler takes it. Throws where a launch can't be read. */
export function translate(source: string): string {
  return launches(dynamicShared(source))
}

function dynamicShared(source: string): string {
  return source.replace(
    /extern __shared__ (?:__align__\(\d+\) )?([\w ]+?) (\w+)\[\];/g,
    '$1 *$2 = static_cast<$1 *>(::emulator::dynamic_shared());',
  )
}

function launches(source: string): string {
  let out = ''
  let rest = source
  for (let at = rest.indexOf('<<<'); at >= 0; at = rest.indexOf('<<<')) {
    const start = kernelStart(rest, at)
    const kernel = rest.slice(start, at).trim()
    const configurationEnd = rest.indexOf('>>>', at)
    const open = rest.indexOf('(', configurationEnd)
    if (configurationEnd < 0 || open < 0) throw new Error(`a launch of ${kernel} does not end`)
    const close = matching(rest, open)
    const configuration = rest.slice(at + 3, configurationEnd)
    const parameters = rest.slice(open + 1, close).trim()
    const call = `[=](auto... given) { ${kernel}(given...); }`
    out += `${rest.slice(0, start)}::emulator::launch(${configuration}, ${call}${parameters === '' ? '' : `, ${parameters}`})`
    rest = rest.slice(close + 1)
  }
  return out + rest
}

/** Where `name` or `name<arguments>` before `end` begins. */
function kernelStart(text: string, end: number): number {
  let at = end
  const before = (pattern: RegExp) => pattern.test(text[at - 1] ?? '')
  while (before(/\s/)) at--
  if (before(/>/))
    for (let depth = 0; ; ) {
      at--
      if (text[at] === '>') depth++
      if (text[at] === '<') depth--
      if (depth === 0) break
      if (at === 0) throw new Error(`no kernel before <<< in ${text.slice(end - 80, end)}`)
    }
  while (before(/[\w:]/)) at--
  return at
}

/** The bracket that closes the one at `open`. */
function matching(text: string, open: number): number {
  for (let at = open, depth = 0; at < text.length; at++) {
    if (text[at] === '(') depth++
    if (text[at] === ')' && --depth === 0) return at
  }
  throw new Error(`a bracket stays open in ${text.slice(open, open + 80)}`)
}
