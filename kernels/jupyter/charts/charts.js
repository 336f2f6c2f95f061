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
    paint(node)
  }

  /** The node of an output that this one replaces: emptied already, or about to be. A second view at the same revision keeps its own. */
  function leftNode({ key, revision }) {
    return [...(charts.get(key) ?? [])].find((node) => !node.isConnected || node.arborChart.revision < revision)
  }

  function newNode(key) {
    const node = document.createElement('div')
    charts.set(key, (charts.get(key) ?? new Set()).add(node))
    resized.observe(node)
    return node
  }

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
    node.arborWidth = node.clientWidth
    window.Plotly.react(node, data, themed(layout), { ...config, responsive: false })
  }

  /** The layout in the page's own colours and font. */
  function themed(layout) {
    const style = getComputedStyle(document.body)
    const value = (name, otherwise) => style.getPropertyValue(name).trim() || otherwise
    const colour = value('--jp-content-font-color1', layout.font?.color)
    const family = value('--jp-content-font-family', undefined) ?? layout.font?.family
    const grid = value('--jp-border-color2', undefined)
    const axes = Object.entries(layout).filter(([name]) => /^[xy]axis\d*$/.test(name))
    const lines = (axis) => (grid ? { ...axis, gridcolor: grid, zerolinecolor: grid, linecolor: grid } : axis)
    return {
      ...layout,
      ...Object.fromEntries(axes.map(([name, axis]) => [name, lines(axis)])),
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
