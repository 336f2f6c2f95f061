// The charts of arbor-nb in a page of JupyterLab or Notebook 7. Served from the kernelspec's folder; loaded once a page, by the script in a
// chart's HTML or by the labextension beside this file. `arborCharts.draw` puts a chart into a host element; a newer revision under the
// same key moves the node there, and with the node its zoom, its hover and the choice in its legend.
;(() => {
  if (window.arborCharts) return
  /** key → nodes that show it; more than one when an output has a second view. */
  const charts = new Map()
  const plotlyUrl = new URL('plotly-basic.min.js', document.currentScript.src).href
  let plotly = null

  function loadPlotly() {
    if (window.Plotly) return Promise.resolve()
    plotly ??= new Promise((resolve, reject) => {
      const script = Object.assign(document.createElement('script'), { src: plotlyUrl, onload: resolve, onerror: reject })
      document.head.append(script)
    })
    return plotly
  }

  /** @param chart `{ key, revision, figure }`; the last one asked for a host wins */
  async function draw(host, chart) {
    host.arborNewest = chart
    await loadPlotly()
    if (host.arborNewest !== chart) return
    const node = host.arborNode ?? leftNode(chart) ?? newNode(chart.key)
    host.arborNode = node
    if (node.parentNode !== host || host.childNodes.length > 1) host.replaceChildren(node)
    node.arborChart = chart
    if (node.data) return askPaint(node)
    await paint(node)
    node.on('plotly_relayout', (change) => keepZoom(node, change))
    node.on('plotly_doubleclick', () => {
      node.arborZoom = {}
      askPaint(node)
    })
  }

  /** Remembers the ranges that a person chose. plotly's own memory (uirevision) ends when the data moves the axis, as a run's next step does. */
  function keepZoom(node, change) {
    for (const name of Object.keys(change)) {
      const [, axis] = /^([xy]axis\d*)\.range/.exec(name) ?? []
      if (axis) node.arborZoom[axis] = [...node._fullLayout[axis].range]
    }
  }

  /** The node of an output that this one replaces: emptied already, or about to be. A second view at the same revision keeps its own. */
  function leftNode({ key, revision }) {
    return [...(charts.get(key) ?? [])].find((node) => !node.isConnected || node.arborChart.revision < revision)
  }

  function newNode(key) {
    const node = Object.assign(document.createElement('div'), { arborZoom: {} })
    // What is measured in the chart does not ask for the layout of the page around it.
    node.style.contain = 'layout style'
    charts.set(key, (charts.get(key) ?? new Set()).add(node))
    resized.observe(node)
    return node
  }

  /** Nodes that show an older chart than theirs. One is painted a frame, so that several charts do not add up to a pause. */
  const waiting = new Set()
  /** The node in which the mouse button is down: drawn again now, it would lose what the person drags. */
  let held = null

  /** Between two drawings of a chart, whatever sends it newer ones. */
  const PAUSE_MS = 190

  function askPaint(node) {
    if (node.arborAsked) return
    node.arborAsked = true
    const wait = Math.max(0, node.arborPainted + PAUSE_MS - performance.now())
    setTimeout(() => {
      if (waiting.size === 0) requestAnimationFrame(paintNext)
      waiting.add(node)
    }, wait)
  }

  function paintNext() {
    const node = [...waiting].find((one) => one !== held)
    waiting.delete(node)
    if (node) paint(node)
    if (waiting.size > 0) requestAnimationFrame(paintNext)
  }

  document.addEventListener('pointerdown', (event) => (held = event.target.closest?.('.js-plotly-plot') ?? null), true)
  // After plotly's own end of the drag.
  const release = () => setTimeout(() => (held = null))
  for (const type of ['pointerup', 'pointercancel', 'blur']) window.addEventListener(type, release, true)

  /** The host is gone for good. */
  function drop(host) {
    const node = host.arborNode
    if (!node || node.parentNode !== host) return
    for (const nodes of charts.values()) nodes.delete(node)
    resized.unobserve(node)
    window.Plotly.purge(node)
  }

  function paint(node) {
    const { data, layout, config } = node.arborChart.figure
    Object.assign(node, { arborWidth: node.clientWidth, arborPainted: performance.now(), arborAsked: false })
    const drawn = themed(layout)
    for (const [axis, range] of Object.entries(node.arborZoom)) drawn[axis] = { ...drawn[axis], range, autorange: false }
    const done = window.Plotly.react(node, data, drawn, { ...config, responsive: false, doubleClick: false })
    hoverAgain(node)
    return done
  }

  let pointer = null
  document.addEventListener('mousemove', (event) => (pointer = event), { capture: true, passive: true })

  /** Drawing takes the label at the pointer away; a move of no distance brings it back, with the new numbers. */
  function hoverAgain(node) {
    if (!pointer) return
    const { clientX, clientY } = pointer
    const target = document.elementFromPoint(clientX, clientY)
    if (node.contains(target))
      target.dispatchEvent(new MouseEvent('mousemove', { clientX, clientY, bubbles: true, view: window }))
  }

  /** The layout in the page's own colours and font. */
  function themed(layout) {
    const style = getComputedStyle(document.body)
    const value = (name, otherwise) => style.getPropertyValue(name).trim() || otherwise
    const colour = value('--jp-content-font-color1', layout.font?.color)
    const family = value('--jp-content-font-family', undefined) ?? layout.font?.family
    const grid = value('--jp-border-color2', undefined)
    const axes = Object.entries(layout).filter(([name]) => /^[xy]axis\d*$/.test(name))
    const colours = grid ? { gridcolor: grid, zerolinecolor: grid, linecolor: grid } : {}
    // A look at each label's place, to hide those beyond the edge, takes a third of plotly's time; ours are within their margins.
    const axisOf = (axis) => ({ ...axis, ...colours, ticklabeloverflow: 'allow', uirevision: false })
    return {
      ...layout,
      ...Object.fromEntries(axes.map(([name, axis]) => [name, axisOf(axis)])),
      font: { ...layout.font, color: colour, family },
      hoverlabel: {
        bgcolor: value('--jp-layout-color2', '#ffffff'),
        bordercolor: grid,
        font: { color: colour, family },
        ...layout.hoverlabel,
      },
    }
  }

  const connected = () => [...charts.values()].flatMap((nodes) => [...nodes]).filter((node) => node.isConnected)

  const resized = new ResizeObserver((entries) => {
    for (const { target } of entries)
      if (target.clientWidth > 0 && target.clientWidth !== target.arborWidth) {
        target.arborWidth = target.clientWidth
        window.Plotly.Plots.resize(target)
      }
  })

  // JupyterLab names the theme on the body before its stylesheet has changed.
  new MutationObserver(() => setTimeout(() => connected().forEach(paint), 300)).observe(document.body, {
    attributeFilter: ['data-jp-theme-name', 'data-jp-theme-light'],
  })

  window.arborCharts = { draw, drop }
})()
