// Elements as plain values, and the page made equal to them. Only what differs is touched, so focus, selection and open folds stay.
// Text goes in as text nodes and nowhere else: nothing that a model wrote can become markup.

export type Prop = string | number | boolean | null | undefined | ((event: never) => void)
export interface Element_ {
  readonly tag: string
  readonly props: Readonly<Record<string, Prop>>
  readonly children: readonly (Element_ | string)[]
}
export type Child = Element_ | string | number | false | null | undefined

const SVG = 'http://www.w3.org/2000/svg'

/** One element. `key` tells children apart that change places; `on…` are listeners; false, null and undefined leave an attribute or a child out. */
export function h(
  tag: string,
  props?: Readonly<Record<string, Prop>> | null,
  ...children: (Child | readonly Child[])[]
): Element_ {
  return { tag, props: props ?? {}, children: childrenOf(children.flat() as Child[]) }
}

/** What is there of a list of children. */
export function childrenOf(children: readonly Child[]): (Element_ | string)[] {
  return children.flatMap((child) => {
    if (child === false || child === null || child === undefined) return []
    return [typeof child === 'object' ? child : String(child)]
  })
}

const remembered = new Map<string, { readonly of: string; readonly element: Element_ }>()

/** The element that `build` makes, made anew only when `of` is another than last time under this name; what is the same is not looked at again. */
export function memo(name: string, of: string, build: () => Element_): Element_ {
  let known = remembered.get(name)
  if (known?.of !== of) remembered.set(name, (known = { of, element: build() }))
  return known.element
}

/** Makes the children of `parent` equal to `wanted`. */
export function patch(parent: Element, wanted: readonly (Element_ | string)[]): void {
  const keyed = new Map<string, Element>()
  for (const child of parent.children) {
    const key = keyOf(child)
    if (key !== undefined) keyed.set(key, child)
  }
  let at: ChildNode | null = parent.firstChild
  for (const child of wanted) {
    const node = suited(parent, child, { at, keyed })
    if (node === at) at = at.nextSibling
    else parent.insertBefore(node, at)
  }
  while (at) {
    const next: ChildNode | null = at.nextSibling
    at.remove()
    at = next
  }
}

/** The node that shows `child`: the one with its key, the one that is there, or a new one. */
function suited(
  parent: Element,
  child: Element_ | string,
  { at, keyed }: { at: ChildNode | null; keyed: ReadonlyMap<string, Element> },
): ChildNode {
  if (typeof child === 'string') {
    if (!(at instanceof Text)) return document.createTextNode(child)
    if (at.data !== child) at.data = child
    return at
  }
  const key = asKey(child.props['key'])
  const known = key === undefined ? at : (keyed.get(key) ?? null)
  const node = known instanceof Element && known.localName === child.tag && keyOf(known) === key ? known : create(parent, child)
  update(node, child)
  return node
}

function create(parent: Element, { tag, props }: Element_): Element {
  if (tag === 'svg' || parent.namespaceURI === SVG) return document.createElementNS(SVG, tag)
  const node = document.createElement(tag)
  if (node instanceof HTMLDetailsElement) node.open = props['open'] === true
  return node
}

/** What each node was last made equal to. */
const applied = new WeakMap<Element, Element_>()

function keyOf(node: Element): string | undefined {
  return asKey(applied.get(node)?.props['key'])
}

function asKey(key: Prop): string | undefined {
  return key === undefined || key === null ? undefined : String(key)
}

function update(node: Element, wanted: Element_): void {
  const last = applied.get(node)
  if (last === wanted) return
  const { props, children } = wanted
  const before = last?.props ?? {}
  for (const name of Object.keys(before)) if (!(name in props)) setProp(node, name, undefined)
  for (const [name, value] of Object.entries(props)) if (before[name] !== value) setProp(node, name, value)
  applied.set(node, wanted)
  patch(node, children)
  if (node instanceof HTMLSelectElement && props['value'] !== undefined) node.value = String(props['value'])
}

function setProp(node: Element, name: string, value: Prop): void {
  if (name === 'key' || name === 'open') return // a person folds; `open` is only how it begins
  if (name.startsWith('on')) (node as unknown as Record<string, unknown>)[name] = value ?? null
  else if (value === undefined || value === null || value === false) node.removeAttribute(name)
  else node.setAttribute(name, value === true ? '' : String(value))
}
