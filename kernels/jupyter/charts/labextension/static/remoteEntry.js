// A labextension written by hand: what a bundler would make of it, in the form that JupyterLab loads (a module federation container).
// It draws an output that names its chart under our own MIME type; the figure is the plotly JSON beside it in the same output. Nothing of
// an output is executed here, so that it draws in a notebook that is not trusted.
;(() => {
  const MIME = 'application/vnd.arbor.plotly.v1+json'
  const PLOTLY = 'application/vnd.plotly.v1+json'
  let shared = {}

  /** The module that JupyterLab shares under this name. */
  async function sharedModule(name) {
    const [newest] = Object.values(shared[name]).reverse()
    return (await newest.get())()
  }

  let loading = null
  function loadCharts() {
    if (window.arborCharts) return Promise.resolve()
    const { baseUrl } = JSON.parse(document.getElementById('jupyter-config-data').textContent)
    loading ??= new Promise((resolve, reject) => {
      const src = `${baseUrl}kernelspecs/arbor-nb/charts.js`
      document.head.append(Object.assign(document.createElement('script'), { src, onload: resolve, onerror: reject }))
    })
    return loading
  }

  function mimeExtension({ Widget }) {
    class ChartWidget extends Widget {
      async renderModel({ data }) {
        const figure = data[PLOTLY]
        // As wide as an HTML output, which the chart was while it changed.
        this.node.style.paddingRight = '20px'
        // Room for the chart, so that nothing below it jumps when it comes.
        this.node.style.minHeight = `${figure.layout.height}px`
        await loadCharts()
        await window.arborCharts.draw(this.node, { ...data[MIME], figure })
      }

      dispose() {
        if (this.isDisposed) return
        window.arborCharts?.drop(this.node)
        super.dispose()
      }
    }
    const rendererFactory = { safe: true, mimeTypes: [MIME], createRenderer: () => new ChartWidget() }
    return { id: 'arbor-nb-charts:renderer', rendererFactory, rank: 0, dataType: 'json' }
  }

  window._JUPYTERLAB ??= {}
  window._JUPYTERLAB['arbor-nb-charts'] = {
    init(scope) {
      shared = scope
    },
    async get(module) {
      if (module !== './mimeExtension') throw new Error(`arbor-nb-charts has no module ${module}`)
      const extension = mimeExtension(await sharedModule('@lumino/widgets'))
      return () => ({ __esModule: true, default: extension })
    },
  }
})()
