// The wall of pictures and the bar that moves all of them along lam. Only rows near the window are in the document.
const TABS = JSON.parse(document.getElementById("data").textContent);
const STRIPS = JSON.parse(document.getElementById("strips").textContent);
document.getElementById("strips").remove();
const byId = (id) => document.getElementById(id);

const CAPTION = 68; // px below a picture
const GAP = 12; // px between cards
const state = { tab: 0, seed: 0, lam: 0, at: 0, order: [], beside: false };
const wall = byId("wall");
const cards = new Map(); // place in the order -> element

const tab = () => TABS[state.tab];
const flat = (prompt, lam, seed = state.seed) => (prompt * tab().seeds.length + seed) * tab().lams.length + lam;
const signed = (value) => (value === null ? "–" : `${value < 0 ? "−" : "+"}${Math.abs(value).toPrecision(2)}`);
const plain = (value) => (value === null || value === undefined ? "–" : String(Number(value.toPrecision(3))));

function changeOf(run, reward, prompt, lam) {
  const scores = run.scores[reward];
  const score = scores[flat(prompt, lam)];
  const reference = scores[flat(prompt, tab().zero)];
  return score === null || reference === null ? null : score - reference;
}

// Of two runs: the second's score less the first's.
function differenceOf(reward, prompt, lam) {
  const [first, second] = tab().runs.map((run) => run.scores[reward][flat(prompt, lam)]);
  return first === null || second === null ? null : second - first;
}

// ---- which prompts, and in which order

const SORTS = {
  order: { label: "the run's order" },
  image: { label: "largest change of the image from lam = 0", key: (p, lam) => tab().runs[0].distance[flat(p, lam)] },
  disagree: { label: "rewards disagree most", key: disagreement },
};

function sortsOf() {
  const sorts = { ...SORTS };
  for (const { name } of tab().rewards) {
    if (tab().runs.length > 1) {
      sorts[`differs ${name}`] = { label: `${name} differs most`, key: (p, lam) => magnitude(differenceOf(name, p, lam)) };
      continue;
    }
    const change = (prompt, lam) => changeOf(tab().runs[0], name, prompt, lam);
    sorts[`falls ${name}`] = { label: `${name} falls most`, key: (p, lam) => negated(change(p, lam)) };
    sorts[`rises ${name}`] = { label: `${name} rises most`, key: change };
  }
  return sorts;
}

const magnitude = (value) => (value === null ? null : Math.abs(value));
const negated = (value) => (value === null ? null : -value);

// The largest difference between the rewards' changes, each in units of its root mean square over prompts.
function disagreement(prompt, lam) {
  const changes = tab().rewards.map(({ name }) => {
    const change = changeOf(tab().runs[0], name, prompt, lam);
    return change === null ? null : change / (typicalChange(name, lam) || 1);
  });
  const known = changes.filter((change) => change !== null);
  return known.length > 1 ? Math.max(...known) - Math.min(...known) : null;
}

const typical = new Map();
function typicalChange(reward, lam) {
  const key = JSON.stringify([state.tab, state.seed, reward, lam]);
  if (!typical.has(key)) {
    const changes = tab().prompts.map((_, prompt) => changeOf(tab().runs[0], reward, prompt, lam) ?? 0);
    typical.set(key, Math.sqrt(changes.reduce((sum, change) => sum + change * change, 0) / changes.length));
  }
  return typical.get(key);
}

function failingGuards(prompt, lam) {
  return tab().rewards.filter(({ name, margin, both }) => {
    const change = margin === null ? null : changeOf(tab().runs[0], name, prompt, lam);
    return change !== null && (change < -margin || (both && change > margin));
  });
}

function isBroken(prompt, lam) {
  return tab().runs.some((run) => {
    const index = flat(prompt, lam);
    const unscored = Object.values(run.scores).some((scores) => scores[index] === null);
    return run.tiles[index] >= 0 && (unscored || run.blackSet.has(index));
  });
}

function arrange() {
  const words = byId("find").value.trim().toLowerCase();
  const show = byId("show").value;
  const lam = state.at;
  state.order = tab().prompts.map((_, prompt) => prompt).filter((prompt) =>
    tab().prompts[prompt].toLowerCase().includes(words)
    && (show !== "failing" || failingGuards(prompt, lam).length > 0)
    && (show !== "broken" || tab().lams.some((_, each) => isBroken(prompt, each))));
  const key = sortsOf()[byId("sort").value]?.key;
  if (key) {
    const keys = new Map(state.order.map((prompt) => [prompt, key(prompt, lam) ?? -Infinity]));
    state.order.sort((a, b) => keys.get(b) - keys.get(a) || a - b);
  }
  const depends = key || show === "failing";
  byId("found").textContent = `${state.order.length} of ${tab().prompts.length} prompts`
    + (depends ? `, as they are at lam = ${tab().lams[lam].label}` : "");
  wall.replaceChildren();
  cards.clear();
  layOut();
}

function rearrangeHere() {
  state.at = state.lam;
  arrange();
  offerAgain();
}

function offerAgain() {
  const depends = sortsOf()[byId("sort").value]?.key || byId("show").value === "failing";
  byId("again").hidden = !depends || state.at === state.lam;
  byId("again").textContent = `Look at lam = ${tab().lams[state.lam].label} instead`;
}

// ---- the wall

const grid = { columns: 1, width: 1, height: 1 };

function layOut() {
  const runs = tab().runs;
  const [w, h] = runs[0].size;
  const parts = runs.length + (state.beside ? 1 : 0);
  const wanted = Math.min(Math.max(runs[0].crisp ? 128 : w, 120), 220) * parts;
  const room = wall.clientWidth;
  grid.columns = Math.max(1, Math.floor((room + GAP) / (wanted + GAP)));
  if (room < 520) grid.columns = Math.max(grid.columns, parts === 1 ? 2 : 1);
  grid.width = (room - GAP * (grid.columns - 1)) / grid.columns;
  grid.height = Math.round((grid.width / parts) * (h / w)) + CAPTION;
  const lines = Math.ceil(state.order.length / grid.columns);
  wall.style.height = `${lines * (grid.height + GAP)}px`;
  for (const card of cards.values()) placeCard(card);
  showNear();
}

function showNear() {
  // where the wall is out of sight, its nearest rows are there, so that the keyboard reaches it
  const step = grid.height + GAP;
  const longest = Math.max(0, wall.clientHeight - innerHeight);
  const above = Math.min(longest, Math.max(0, -wall.getBoundingClientRect().top));
  const from = Math.max(0, Math.floor(above / step) - 2) * grid.columns;
  const to = Math.min(state.order.length, (Math.ceil((above + innerHeight) / step) + 2) * grid.columns);
  for (const [place, card] of cards) {
    if ((place < from || place >= to) && !card.contains(document.activeElement)) {
      card.remove();
      cards.delete(place);
    }
  }
  for (let place = from; place < to; place += 1) if (!cards.has(place)) addCard(place);
}

function addCard(place) {
  const card = document.createElement("li");
  card.place = place;
  card.prompt = state.order[place];
  card.setAttribute("aria-setsize", state.order.length);
  card.setAttribute("aria-posinset", place + 1);
  const button = document.createElement("button");
  button.type = "button";
  button.addEventListener("click", () => openDetail(card.prompt));
  const pictures = document.createElement("span");
  pictures.className = "pictures";
  tab().runs.forEach((_, run) => {
    if (state.beside) pictures.append(makePicture(run, card.prompt, true));
    pictures.append(makePicture(run, card.prompt, false));
  });
  card.text = document.createElement("span");
  card.text.className = "text";
  card.text.textContent = tab().prompts[card.prompt];
  card.text.title = card.text.textContent;
  card.score = document.createElement("span");
  card.score.className = "score";
  button.append(pictures, card.text, card.score);
  card.append(button);
  card.pictures = [...pictures.children];
  cards.set(place, card);
  placeCard(card);
  updateCard(card);
  const later = [...cards.keys()].filter((other) => other > place);
  wall.insertBefore(card, later.length ? cards.get(Math.min(...later)) : null);
}

function placeCard(card) {
  const line = Math.floor(card.place / grid.columns);
  const column = card.place % grid.columns;
  card.style.width = `${grid.width}px`;
  card.style.height = `${grid.height}px`;
  card.style.transform = `translate(${column * (grid.width + GAP)}px, ${line * (grid.height + GAP)}px)`;
}

// A picture is a strip of all lams behind a window of one tile.
function makePicture(run, prompt, fixed) {
  const { size, crisp, counts } = tab().runs[run];
  const picture = document.createElement("span");
  picture.className = crisp ? "picture crisp" : "picture";
  picture.style.aspectRatio = `${size[0]} / ${size[1]}`;
  picture.run = run;
  picture.fixed = fixed;
  const place = prompt * tab().seeds.length + state.seed;
  const strip = STRIPS[state.tab][run][place];
  picture.count = counts[place];
  if (strip) picture.style.backgroundImage = `url(data:image/webp;base64,${strip})`;
  picture.style.backgroundSize = `${100 * picture.count}% 100%`;
  return picture;
}

function showTile(picture, prompt, lam) {
  const tile = tab().runs[picture.run].tiles[flat(prompt, lam)];
  picture.classList.toggle("gap", tile < 0);
  picture.style.backgroundPositionX = tile < 0 ? "200%" : `${picture.count > 1 ? (100 * tile) / (picture.count - 1) : 0}%`;
  picture.dataset.tile = tile;
}

function updateCard(card) {
  const { lam } = state;
  for (const picture of card.pictures) showTile(picture, card.prompt, picture.fixed ? tab().zero : lam);
  const failing = failingGuards(card.prompt, lam);
  const [first] = tab().rewards;
  const measure = tab().runs.length > 1 ? differenceOf : (...what) => changeOf(tab().runs[0], ...what);
  const change = first ? measure(first.name, card.prompt, lam) : null;
  card.score.textContent = failing.length
    ? `▼ ${failing.map(({ name }) => name).join(", ")}`
    : first ? `${signed(change)} ${first.name}` : "";
  card.score.classList.toggle("failing", failing.length > 0);
}

// ---- the bar

function nearestLam(value) {
  const distances = tab().lams.map((lam) => Math.abs(lam.value - value));
  return distances.indexOf(Math.min(...distances));
}

let frame = 0;
function moveTo(lam) {
  if (lam === state.lam) return;
  state.lam = lam;
  frame ||= requestAnimationFrame(() => {
    frame = 0;
    showLam();
  });
}

function showLam() {
  const { value, label, beta, verdict, reason } = tab().lams[state.lam];
  const input = byId("lam");
  input.value = value;
  byId("reading").textContent = `lam ${label}`;
  byId("verdict").textContent = [beta && `beta ${beta}`, reason || verdict].filter(Boolean).join(" · ");
  input.setAttribute("aria-valuetext", `lam ${label} ${byId("verdict").textContent}`);
  for (const card of cards.values()) updateCard(card);
  moveCursors(value);
  offerAgain();
}

const STEPS = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: 1, PageDown: -1 };
function stepLam(event) {
  const last = tab().lams.length - 1;
  const ends = { Home: 0, End: last };
  const to = event.key in STEPS ? state.lam + STEPS[event.key] : ends[event.key];
  if (to === undefined) return;
  event.preventDefault();
  moveTo(Math.min(last, Math.max(0, to)));
}

function fillBar() {
  const lams = tab().lams;
  const low = lams[0].value;
  const high = lams.at(-1).value;
  const share = (value) => (high > low ? (value - low) / (high - low) : 0);
  byId("lam").min = low;
  byId("lam").max = high;
  byId("marks").replaceChildren(...lams.map(({ value, verdict }, index) => {
    const mark = document.createElement("i");
    const from = index ? (share(value) + share(lams[index - 1].value)) / 2 : 0;
    const to = index < lams.length - 1 ? (share(value) + share(lams[index + 1].value)) / 2 : 1;
    mark.className = verdict ? verdict.replaceAll(" ", "-") : "reference";
    mark.style.cssText = `left: ${100 * from}%; width: ${100 * (to - from)}%`;
    return mark;
  }));
  byId("chosen").textContent = `${tab().curve.length ? "Recommended:" : "lam ="} ${lams[tab().chosen].label}`;
  drawSpark(share);
}

function drawSpark(share) {
  const points = tab().curve.map((row, index) => [share(tab().lams[index].value), ...row]);
  const known = points.filter((point) => point.every((value) => value !== null));
  const heights = known.flatMap((point) => point.slice(1));
  const [low, high] = [Math.min(...heights), Math.max(...heights)];
  const y = (value) => 96 - (92 * (value - low)) / (high - low || 1);
  const line = (column) => known.map((point) => `${100 * point[0]},${y(point[column])}`);
  byId("spark").setAttribute("viewBox", "0 0 100 100");
  const shapes = { polygon: [...line(3), ...line(2).reverse()], polyline: line(1) };
  byId("spark").replaceChildren(...(known.length ? Object.entries(shapes) : []).map(([name, coordinates]) => {
    const shape = document.createElementNS("http://www.w3.org/2000/svg", name);
    shape.setAttribute("points", coordinates.join(" "));
    return shape;
  }));
}

// ---- printing: every lam of the first prompts as rows under their labels

const PRINTED = 40;
function fillSheet() {
  const lams = tab().lams;
  const head = document.createElement("div");
  head.className = "line";
  head.append(...lams.map(({ label }) => Object.assign(document.createElement("b"), { textContent: `lam ${label}` })));
  const rows = state.order.slice(0, PRINTED).flatMap((prompt) => tab().runs.map((_, run) => {
    const row = document.createElement("figure");
    row.append(Object.assign(document.createElement("figcaption"), { textContent: tab().prompts[prompt] }));
    const line = document.createElement("div");
    line.className = "line";
    lams.forEach((_, lam) => {
      const picture = makePicture(run, prompt, false);
      showTile(picture, prompt, lam);
      line.append(picture);
    });
    row.append(line);
    return row;
  }));
  byId("sheet").replaceChildren(head, ...rows);
}
