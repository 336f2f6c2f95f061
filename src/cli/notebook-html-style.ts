// The page's look: one reading column, contents at the side where there is room, light and dark as the reader's system is.

export const PAGE_STYLE = `
:root {
  --paper: #fdfdfc; --text: #24292f; --muted: #66707b; --line: #e3e5e8; --grid: #e7e9ec; --panel: #f5f6f7; --link: #0b62a8;
  --accent: #0072b2; --bad: #b3401d; --bad-panel: #fdf3ef; --mark: #fff6d6;
  --keyword: #8a3ba8; --string: #1c6b3c; --number: #9a5200; --title: #0b5c9e; --comment: #78828c; --type: #7a4d00;
  --sans: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  --mono: ui-monospace, "SF Mono", "Cascadia Code", "JetBrains Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace;
}
@media (prefers-color-scheme: dark) { :root {
  --paper: #15181c; --text: #dfe3e8; --muted: #97a1ac; --line: #2d333a; --grid: #2c3239; --panel: #1d2126; --link: #6cb6f0;
  --accent: #56b4e9; --bad: #f0906d; --bad-panel: #2b1d18; --mark: #3a3316;
  --keyword: #cf9be6; --string: #86cf9f; --number: #eab676; --title: #7cc0f5; --comment: #7f8a95; --type: #e3c07b;
} }
* { box-sizing: border-box }
html { scroll-behavior: smooth; scroll-padding-top: 1.5rem }
body { margin: 0; background: var(--paper); color: var(--text); font: 17px/1.65 var(--sans); text-rendering: optimizeLegibility }
main { max-width: 55rem; margin: 0 auto; padding: 3rem 1.5rem 5rem }
nav.contents { max-width: 55rem; margin: 0 auto; padding: 1rem 1.5rem 0; font-size: .84rem; line-height: 1.4 }
nav.contents:empty { display: none }
nav summary { color: var(--muted); cursor: pointer; padding-bottom: .5rem }
@media (min-width: 77rem) {
  nav summary { display: none }
  nav.contents { position: fixed; inset: 0 auto 0 0; width: 17rem; margin: 0; padding: 3.2rem 1rem 2rem 1.5rem; overflow-y: auto; font-size: .84rem; line-height: 1.4 }
  main { margin-left: max(18rem, calc(50vw - 27.5rem)) }
}
nav ol { list-style: none; margin: 0; padding: 0; border-left: 1px solid var(--line) }
nav a { display: block; padding: .24rem .8rem; color: var(--muted); text-decoration: none; border-left: 2px solid transparent; margin-left: -1px }
nav a:hover { color: var(--text) }
nav a[aria-current] { color: var(--text); border-left-color: var(--accent) }
nav .d1 a { font-weight: 600; color: var(--text) }
nav .d3 a { padding-left: 1.7rem }
a { color: var(--link); text-underline-offset: .18em; text-decoration-thickness: .06em }
h1, h2, h3, h4 { line-height: 1.25; margin: 2.4em 0 .7em; font-weight: 650; letter-spacing: -.012em; text-wrap: balance }
h1 { font-size: 2.15rem; margin-top: 0; letter-spacing: -.022em }
h2 { font-size: 1.5rem; padding-top: 1.3rem; border-top: 1px solid var(--line) }
h3 { font-size: 1.16rem }
h4 { font-size: 1rem }
.anchor { margin-left: .4em; color: var(--muted); text-decoration: none; opacity: 0; font-weight: 400 }
:is(h1,h2,h3,h4):hover .anchor, .anchor:focus { opacity: .6 }
p, ul, ol, blockquote, .prose .scroll, .fence, .formula { margin: 0 0 1.05em }
li + li { margin-top: .3em }
blockquote { margin-left: 0; padding: .7em 1.1em; border-left: 3px solid var(--accent); background: var(--panel); border-radius: 0 6px 6px 0 }
blockquote > :last-child { margin-bottom: 0 }
hr { border: 0; border-top: 1px solid var(--line); margin: 2.5em 0 }
img { max-width: 100% }
code, pre { font-family: var(--mono); font-size: .84em }
:not(pre) > code { background: var(--panel); border: 1px solid var(--line); border-radius: 4px; padding: .08em .32em; overflow-wrap: anywhere }
pre { margin: 0; overflow-x: auto; line-height: 1.55; font-size: .785rem; tab-size: 2 }
pre code { font-size: inherit }
.fence { background: var(--panel); padding: .85em 1.1em; border-radius: 7px }
.scroll { overflow-x: auto }
.formula { text-align: center; padding: .4em 0; font-size: 1.06em }
.tex { font-family: "STIX Two Text", "Latin Modern Math", Cambria, Georgia, serif; white-space: pre-wrap }
table { border-collapse: collapse; font-size: .88rem; line-height: 1.45; font-variant-numeric: tabular-nums }
th, td { padding: .45em .85em; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line) }
thead th { border-bottom: 2px solid var(--line); font-weight: 620; white-space: nowrap }
td > code { white-space: nowrap }
tbody th { font-weight: 400; color: var(--muted) }
.cell { margin: 1.5em 0 1.9em }
.code { background: var(--panel); border: 1px solid var(--line); border-left: 3px solid var(--accent); border-radius: 3px 7px 7px 3px; padding: .9em 1.1em }
.mark { display: flex; gap: .9em; justify-content: flex-end; font: .7rem/1.5 var(--mono); color: var(--muted); padding: 0 .2em .2em }
.mark span:first-child { margin-right: auto }
.mark span:first-child:not(:empty)::before { content: "[" } .mark span:first-child:not(:empty)::after { content: "]" }
.outputs { padding: .75em 0 0 }
.outputs > * + * { margin-top: .9em }
.stream, .value { padding: .15em 0 .15em 1.1em; border-left: 3px solid var(--line); max-height: 26em; overflow-y: auto; white-space: pre-wrap; overflow-wrap: anywhere }
.stderr { color: var(--muted) }
.error { padding: .85em 1.1em; border-left: 3px solid var(--bad); background: var(--bad-panel); color: var(--bad); border-radius: 3px 7px 7px 3px; white-space: pre-wrap; overflow-wrap: anywhere }
.html { font-size: .93rem }
.html p { margin: .4em 0 0; color: var(--muted); font-size: .84rem }
.chart { margin: 0; min-height: 12rem; overflow-x: auto; overflow-y: hidden }
.chart > div { min-width: 34rem }
.picture { display: block; max-width: 100% }
footer { margin-top: 4rem; padding-top: 1rem; border-top: 1px solid var(--line); color: var(--muted); font-size: .82rem }
.hljs-keyword, .hljs-literal, .hljs-meta { color: var(--keyword) }
.hljs-string, .hljs-regexp, .hljs-template-tag { color: var(--string) }
.hljs-number { color: var(--number) }
.hljs-title, .hljs-attr, .hljs-section { color: var(--title) }
.hljs-built_in, .hljs-type, .hljs-class { color: var(--type) }
.hljs-comment, .hljs-quote { color: var(--comment); font-style: italic }
@media (max-width: 40rem) { body { font-size: 16px } main { padding: 1.6rem 1rem 3rem } h1 { font-size: 1.7rem } pre { font-size: .74rem } }
@media print { nav.contents, .anchor { display: none !important } main { margin: 0; max-width: none } .cell { break-inside: avoid } .stream, .value { max-height: none } }
`
