// Controls, tabs, and the first drawing.
function openTab(number) {
  state.tab = number;
  state.seed = 0;
  state.lam = state.at = tab().chosen;
  document.querySelectorAll("[role=tab]").forEach((button, index) => {
    button.setAttribute("aria-selected", String(index === number));
    button.tabIndex = index === number ? 0 : -1;
  });
  document.querySelectorAll(".panel").forEach((panel, index) => { panel.hidden = TABS.length > 1 && index !== number; });
  fillSelect(byId("sort"), Object.entries(sortsOf()).map(([value, { label }]) => [value, label]));
  fillSelect(byId("seed"), tab().seeds.map((seed, index) => [String(index), String(seed)]));
  fillBar();
  arrange();
  showLam();
}

function fillSelect(select, options) {
  select.replaceChildren(...options.map(([value, label]) => new Option(label, value)));
  select.closest("label").hidden = options.length < 2;
}

for (const each of TABS) for (const run of each.runs) run.blackSet = new Set(run.black);
document.querySelectorAll("[role=tab]").forEach((button, number) => {
  button.addEventListener("click", () => openTab(number));
  button.addEventListener("keydown", (event) => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!by) return;
    const next = (number + by + TABS.length) % TABS.length;
    openTab(next);
    document.querySelectorAll("[role=tab]")[next].focus();
  });
});
byId("lam").addEventListener("input", (event) => moveTo(nearestLam(Number(event.target.value))));
byId("lam").addEventListener("change", () => showLam());
byId("lam").addEventListener("keydown", stepLam);
byId("chosen").addEventListener("click", () => moveTo(tab().chosen));
byId("find").addEventListener("input", arrange);
byId("show").addEventListener("change", rearrangeHere);
byId("sort").addEventListener("change", rearrangeHere);
byId("again").addEventListener("click", rearrangeHere);
byId("seed").addEventListener("change", (event) => {
  state.seed = Number(event.target.value);
  arrange();
});
byId("beside").addEventListener("change", (event) => {
  state.beside = event.target.checked;
  arrange();
});
let scrolled = 0;
addEventListener("scroll", () => {
  scrolled ||= requestAnimationFrame(() => {
    scrolled = 0;
    showNear();
  });
}, { passive: true });
new ResizeObserver(() => { if (wall.clientWidth) layOut(); }).observe(wall.parentElement);
addEventListener("beforeprint", fillSheet);
openTab(0);
document.documentElement.dataset.ready = String(Math.round(performance.now()));
