// Writes train.jsonl, dev.jsonl, test.jsonl and demos.jsonl from the facts below: node data/simple-qa/make.mjs
// One row per fact, so no fact is in two splits; every category is spread over the splits in proportion.
import { writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const SIZES = { train: 200, dev: 100, test: 100 }
const pairs = (text) => text.trim().split(/\s*;\s*/).map((pair) => pair.split(/\s*=\s*/))

const capitals = pairs(`Norway = Oslo; Sweden = Stockholm; Denmark = Copenhagen; Finland = Helsinki; Iceland = Reykjavik; Spain = Madrid; Portugal = Lisbon;
  Italy = Rome; Greece = Athens; Austria = Vienna; Hungary = Budapest; Poland = Warsaw; Ireland = Dublin; Belgium = Brussels; Germany = Berlin; Russia = Moscow;
  Ukraine = Kyiv; Romania = Bucharest; Bulgaria = Sofia; Croatia = Zagreb; Turkey = Ankara; Egypt = Cairo; Kenya = Nairobi; Ghana = Accra; Ethiopia = Addis Ababa;
  Morocco = Rabat; Cuba = Havana; Peru = Lima; Chile = Santiago; Argentina = Buenos Aires; Colombia = Bogota; Ecuador = Quito; Canada = Ottawa; Japan = Tokyo;
  China = Beijing; India = New Delhi; Thailand = Bangkok; Vietnam = Hanoi; Nepal = Kathmandu; Iran = Tehran; Iraq = Baghdad; Lebanon = Beirut; Jordan = Amman;
  Australia = Canberra; Indonesia = Jakarta; Qatar = Doha; Serbia = Belgrade; Senegal = Dakar; Venezuela = Caracas; Jamaica = Kingston; Malaysia = Kuala Lumpur;
  Bangladesh = Dhaka; Afghanistan = Kabul; Syria = Damascus; South Korea = Seoul; the Netherlands = Amsterdam; the Philippines = Manila; Switzerland = Bern`)
const currencies = pairs(`Japan = yen; India = rupee; China = yuan; Russia = ruble; Mexico = peso; Poland = zloty; Germany = euro; the United Kingdom = pound;
  Canada = dollar; South Korea = won; Switzerland = franc; Thailand = baht`)
const languages = pairs(`Brazil = Portuguese; Mexico = Spanish; Austria = German; Egypt = Arabic; Iran = Persian; Japan = Japanese; Greece = Greek; Hungary = Hungarian;
  Poland = Polish; Turkey = Turkish; Thailand = Thai; Denmark = Danish; Cuba = Spanish; Jamaica = English; Argentina = Spanish; Italy = Italian`)
const continents = pairs(`Kenya = Africa; Brazil = South America; Japan = Asia; Canada = North America; Italy = Europe; Nigeria = Africa; India = Asia; Peru = South America;
  Poland = Europe; Mexico = North America`)
const symbols = pairs(`oxygen = O; hydrogen = H; carbon = C; gold = Au; silver = Ag; iron = Fe; sodium = Na; potassium = K; helium = He; neon = Ne; calcium = Ca;
  copper = Cu; zinc = Zn; lead = Pb; tin = Sn; mercury = Hg; nitrogen = N; chlorine = Cl; magnesium = Mg; aluminum = Al; silicon = Si; sulfur = S; lithium = Li; uranium = U`)
const elements = pairs(`Au = gold; Ag = silver; Fe = iron; Na = sodium; He = helium; Cu = copper; Pb = lead; Hg = mercury; Mg = magnesium; Ca = calcium; Zn = zinc; Ni = nickel`)
const opposites = pairs(`hot = cold; big = small; fast = slow; up = down; day = night; happy = sad; old = young; hard = soft; light = dark; open = closed; early = late;
  high = low; rich = poor; strong = weak; wet = dry; full = empty; clean = dirty; long = short; wide = narrow; true = false; win = lose; buy = sell; push = pull; love = hate;
  begin = end; right = wrong; loud = quiet; near = far; heavy = light; thick = thin; ancient = modern; deep = shallow; sweet = sour; rough = smooth; good = bad;
  black = white; inside = outside; left = right; first = last; always = never; war = peace; friend = enemy; success = failure; increase = decrease; positive = negative;
  north = south; east = west; top = bottom; front = back; give = take; enter = exit; remember = forget`)
const plurals = pairs(`child = children; mouse = mice; foot = feet; tooth = teeth; goose = geese; man = men; woman = women; leaf = leaves; wolf = wolves; knife = knives;
  city = cities; baby = babies; half = halves; berry = berries; shelf = shelves; loaf = loaves; thief = thieves; story = stories; country = countries; family = families;
  party = parties; penny = pennies; fly = flies; puppy = puppies; lady = ladies; army = armies; cherry = cherries; life = lives; wife = wives; person = people;
  body = bodies; butterfly = butterflies; library = libraries; cactus = cacti`)
const pasts = pairs(`go = went; eat = ate; see = saw; run = ran; take = took; write = wrote; give = gave; come = came; think = thought; buy = bought;
  sing = sang; swim = swam; drink = drank; speak = spoke; fly = flew; know = knew`)
const young = pairs(`dog = puppy; cat = kitten; cow = calf; horse = foal; sheep = lamb; duck = duckling; frog = tadpole; lion = cub`)
const colours = pairs(`grass = green; snow = white; blood = red; coal = black; a ripe banana = yellow; the clear sky = blue; a carrot = orange; a lime = green; milk = white; a raven = black`)
const sides = pairs(`triangle = 3; square = 4; pentagon = 5; hexagon = 6; octagon = 8; rectangle = 4; heptagon = 7; decagon = 10`)
const after = pairs(`Monday = Tuesday; Tuesday = Wednesday; Wednesday = Thursday; Thursday = Friday; Friday = Saturday; Saturday = Sunday; Sunday = Monday;
  January = February; February = March; March = April; April = May; May = June; June = July; July = August; August = September; September = October; October = November; November = December`)
const authors = pairs(`Hamlet = Shakespeare; Don Quixote = Cervantes; War and Peace = Tolstoy; The Odyssey = Homer`)

const random = generator(20251122)
const ask = (rows, question) => rows.map(([subject, answer]) => ({ question: question(subject), answer }))
const sums = unique(45, () => { const a = 2 + pick(11), b = 2 + pick(11); return [`What is ${a} plus ${b}?`, `${a + b}`] })
const differences = unique(20, () => { const b = 1 + pick(9), a = b + 1 + pick(10); return [`What is ${a} minus ${b}?`, `${a - b}`] })
const products = unique(54, () => { const a = 2 + pick(10), b = 2 + pick(10); return [`What is ${a} times ${b}?`, `${a * b}`] })

const categories = {
  capital: ask(capitals, (x) => `What is the capital of ${x}?`),
  currency: ask(currencies, (x) => `What is the currency of ${x}?`),
  language: ask(languages, (x) => `What language do most people in ${x} speak?`),
  continent: ask(continents, (x) => `On which continent is ${x}?`),
  symbol: ask(symbols, (x) => `What is the chemical symbol for ${x}?`),
  element: ask(elements, (x) => `Which element has the symbol ${x}?`),
  opposite: ask(opposites, (x) => `What is the opposite of ${x}?`),
  plural: ask(plurals, (x) => `What is the plural of ${x}?`),
  past: ask(pasts, (x) => `What is the past tense of ${x}?`),
  young: ask(young, (x) => `What is a young ${x} called?`),
  colour: ask(colours, (x) => `What color is ${x}?`),
  sides: ask(sides, (x) => `How many sides does a ${x} have?`),
  next: ask(after, (x) => `What comes after ${x}?`),
  author: ask(authors, (x) => `Who wrote ${x}?`),
  sum: sums, difference: differences, product: products,
}

// Two fixed demonstrations, in none of the splits.
const demos = [
  { question: 'What is the capital of France?', reasoning: 'The capital of France is Paris.', answer: 'Paris' },
  { question: 'What is 7 plus 5?', reasoning: '7 plus 5 is 12.', answer: '12' },
]
const demoQuestions = new Set(demos.map((demo) => demo.question))

const all = Object.entries(categories).flatMap(([category, rows]) =>
  shuffle(rows.filter((row) => !demoQuestions.has(row.question))).map((row, i) => ({ ...row, category, rank: (i + random()) / rows.length })))
const total = SIZES.train + SIZES.dev + SIZES.test
if (all.length < total) throw new Error(`${all.length} facts, ${total} needed`)
// A category's rows have ranks spread over 0..1: cutting the list ordered by rank keeps every split's mix of categories alike.
const chosen = spread(all, total)
const splits = { train: [], dev: [], test: [] }
for (const [i, row] of chosen.entries()) splits[['train', 'dev', 'train', 'test'][i % 4]].push(row)
for (const [name, rows] of Object.entries(splits)) write(name, shuffle(rows).map(({ question, answer, category }) => ({ question, answer, category })))
write('demos', demos)

function spread(rows, count) {
  const ordered = [...rows].sort((a, b) => a.rank - b.rank).slice(0, count)
  return ordered.sort((a, b) => (a.category < b.category ? -1 : a.category > b.category ? 1 : a.rank - b.rank))
}
function write(name, rows) {
  const path = join(dirname(fileURLToPath(import.meta.url)), `${name}.jsonl`)
  writeFileSync(path, rows.map((row) => JSON.stringify(row)).join('\n') + '\n')
  console.log(`${name}: ${rows.length}`)
}
function unique(count, make) {
  const rows = new Map([['What is 7 plus 5?', null]])
  while (rows.size <= count) { const [question, answer] = make(); if (!rows.has(question)) rows.set(question, { question, answer }) }
  rows.delete('What is 7 plus 5?')
  return [...rows.values()]
}
function pick(n) { return Math.floor(random() * n) }
function shuffle(rows) {
  const out = [...rows]
  for (let i = out.length - 1; i > 0; i--) { const j = pick(i + 1); [out[i], out[j]] = [out[j], out[i]] }
  return out
}
/** mulberry32: 32 bits of state are plenty here. */
function generator(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
}
