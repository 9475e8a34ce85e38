// Figures: plotly is unpacked once, each figure is drawn when it comes near the window, and a cursor follows lam.
const CURSOR = { at: null };

const plotlyReady = new Promise((resolve) => addEventListener("DOMContentLoaded", resolve)).then(async () => {
  const packed = Uint8Array.from(atob(document.getElementById("plotly").textContent), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = await new Response(stream).text();
  document.head.append(script);
});

function plotSpec(element) {
  element.spec ??= JSON.parse(element.dataset.figure);
  return element.spec;
}

async function drawFigure(element) {
  if (element.drawing) return element.drawing;
  element.drawing = plotlyReady.then(async () => {
    const { data, layout } = plotSpec(element);
    await Plotly.newPlot(element, data, layout, { displayModeBar: false, responsive: true });
    placeCursor(element);
  });
  return element.drawing;
}

const nearFigures = new IntersectionObserver(
  (entries) => entries.filter((entry) => entry.isIntersecting).forEach((entry) => drawFigure(entry.target)),
  { rootMargin: "300px" },
);
for (const element of document.querySelectorAll("[data-figure]")) nearFigures.observe(element);

// On paper plots are as wide as their columns; on a screen plotly itself fits them.
const isShown = (element) => !element.closest(".panel[hidden]");
const shownFigures = () => [...document.querySelectorAll("[data-figure]")].filter(isShown);
addEventListener("beforeprint", () => shownFigures().forEach((element) => drawFigure(element).then(() => {
  const { clientWidth: width, clientHeight: height } = element;
  element.parentElement.style.setProperty("--width", width);
  element.style.setProperty("--shape", `${width} / ${height}`);
  element.querySelectorAll(".main-svg").forEach((svg) => svg.setAttribute("viewBox", `0 0 ${width} ${height}`));
})));
addEventListener("afterprint", () => document.querySelectorAll(".main-svg").forEach((svg) => svg.removeAttribute("viewBox")));

function moveCursors(lam) {
  CURSOR.at = lam;
  for (const element of shownFigures()) placeCursor(element);
}

// A line across the plot, or a ring on the path, where its figure says that lam is.
function placeCursor(element) {
  const { layout } = plotSpec(element);
  const way = layout.meta?.cursor;
  const index = way ? way.lams.indexOf(CURSOR.at) : -1;
  const cursor = element.querySelector(":scope > .cursor") ?? element.appendChild(makeCursor(way?.y));
  cursor.hidden = index < 0 || !element.querySelector(".main-svg"); // not drawn yet
  if (cursor.hidden) return;
  const { l, r, t, b } = layout.margin;
  const [x0, x1] = layout.xaxis.range;
  const x = l + ((way.x[index] - x0) / (x1 - x0)) * (element.clientWidth - l - r);
  if (!way.y) {
    cursor.style.top = `${t}px`;
    cursor.style.transform = `translateX(${x}px)`;
    return;
  }
  const [y0, y1] = layout.yaxis.range;
  const y = t + ((y1 - way.y[index]) / (y1 - y0)) * (element.clientHeight - t - b);
  cursor.style.transform = `translate(${x}px, ${y}px)`;
}

function makeCursor(heights) {
  const cursor = document.createElement("i");
  cursor.className = heights ? "cursor ring" : "cursor";
  return cursor;
}
addEventListener("resize", () => moveCursors(CURSOR.at));
