// The page's own script: draws the charts in the colours of the theme, and marks the section that is being read.

export const PAGE_SCRIPT = `
(() => {
  const style = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim()
  const axes = layout => Object.keys(layout).filter(key => /^[xy]axis/.test(key))
  const themed = layout => {
    const text = style('--muted'), grid = style('--grid')
    const out = { ...layout, paper_bgcolor: 'rgba(0,0,0,0)', plot_bgcolor: 'rgba(0,0,0,0)' }
    out.font = { ...layout.font, color: text, family: style('--sans') }
    if (layout.title) out.title = { ...layout.title, font: { ...layout.title.font, color: style('--text') } }
    for (const axis of axes(layout)) out[axis] = { ...layout[axis], gridcolor: grid, zerolinecolor: grid, linecolor: grid }
    return out
  }
  const charts = [...document.querySelectorAll('figure.chart')].map(figure => ({
    box: figure.querySelector('div'), ...JSON.parse(figure.querySelector('script').textContent) }))
  const draw = () => charts.forEach(({ box, data, layout, config }) =>
    Plotly.react(box, data, themed(layout ?? {}), { displayModeBar: false, responsive: true, ...config }))
  if (charts.length) {
    draw()
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', draw)
  }
  const contents = document.querySelector('nav details')
  const wide = matchMedia('(min-width: 77rem)')
  const fold = () => { if (contents) contents.open = wide.matches }
  wide.addEventListener('change', fold)
  fold()
  const links = new Map([...document.querySelectorAll('nav a')].map(a => [a.hash.slice(1), a]))
  const heads = [...document.querySelectorAll('h1[id],h2[id],h3[id]')]
  const mark = () => {
    const read = heads.filter(h => h.getBoundingClientRect().top < 120).at(-1) ?? heads[0]
    links.forEach((a, id) => a.toggleAttribute('aria-current', read !== undefined && id === read.id))
  }
  addEventListener('scroll', mark, { passive: true })
  mark()
})()
`
