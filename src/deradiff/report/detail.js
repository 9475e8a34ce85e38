// One prompt at full size: two pictures under a wipe, their scores, and the command that samples one again.
const detail = { prompt: 0, left: [0, 0], right: [0, 0] };

function openDetail(prompt) {
  const { runs, zero } = tab();
  detail.right = [runs.length - 1, state.lam];
  detail.left = runs.length > 1 ? [0, state.lam] : [0, zero];
  showPrompt(prompt);
  byId("detail").showModal();
  byId("wipe").focus();
}

function showPrompt(prompt) {
  detail.prompt = prompt;
  byId("detail-title").textContent = tab().prompts[prompt];
  byId("detail-sub").textContent = `seed ${tab().seeds[state.seed]}`;
  for (const side of ["left", "right"]) {
    const select = byId(`${side}-lam`);
    select.replaceChildren(...choices(prompt));
    select.value = detail[side].join(" ");
  }
  showSides();
}

function choices(prompt) {
  return tab().runs.flatMap((run, number) => tab().lams.map(({ label }, lam) => {
    const option = document.createElement("option");
    option.value = `${number} ${lam}`;
    option.textContent = `${run.name ? `${run.name}, ` : ""}lam ${label}`;
    option.disabled = run.tiles[flat(prompt, lam)] < 0;
    return option;
  }));
}

function showSides() {
  for (const side of ["left", "right"]) showFull(byId(side), ...detail[side]);
  byId("resolution").textContent = "";
  fillScores();
  const [run, lam] = detail.right;
  const { command } = tab().runs[run];
  byId("command").textContent = command ? commandOf(command, lam) : "";
  byId("command").hidden = byId("command-title").hidden = !command;
  moveWipe();
}

// The small picture at once, the full one above it as soon as it is found beside the page.
function showFull(element, run, lam) {
  const small = makePicture(run, detail.prompt, false);
  showTile(small, detail.prompt, lam);
  small.setAttribute("role", "img");
  small.setAttribute("aria-label", `${tab().prompts[detail.prompt]}, ${tab().runs[run].name} lam ${tab().lams[lam].label}`);
  const file = tab().runs[run].files[flat(detail.prompt, lam)];
  element.replaceChildren(small);
  byId("stage").style.aspectRatio = small.style.aspectRatio;
  if (!file || (tab().runs[run].crisp)) return;
  const full = new Image();
  full.alt = "";
  full.addEventListener("load", () => element.append(full));
  full.addEventListener("error", () => {
    byId("resolution").textContent = "The full picture isn't beside this page; this is the small one.";
  });
  full.src = file;
}

function fillScores() {
  const sides = [detail.left, detail.right];
  const row = (tag, cells) => {
    const line = document.createElement("tr");
    line.append(...cells.map((text, index) => {
      const cell = document.createElement(index && tag === "td" ? "td" : "th");
      cell.scope = tag === "th" ? "col" : "row";
      cell.textContent = text;
      return cell;
    }));
    return line;
  };
  const names = sides.map(([run, lam]) => `${tab().runs[run].name} lam ${tab().lams[lam].label}`.trim());
  const values = (table) => {
    const [left, right] = sides.map(([run, lam]) => table(tab().runs[run])?.[flat(detail.prompt, lam)] ?? null);
    return [plain(left), plain(right), left === null || right === null ? "–" : signed(right - left)];
  };
  byId("scores").replaceChildren(
    row("th", ["reward", ...names, "difference"]),
    ...tab().rewards.map(({ name, role }) => row("td", [`${name} (${role})`, ...values((run) => run.scores[name])])),
    row("td", ["path KL, nats", ...values((run) => run.kl)]),
  );
}

function commandOf(command, lam) {
  const quoted = `'${tab().prompts[detail.prompt].replaceAll("'", "'\\''")}'`;
  return `${command} --lam ${tab().lams[lam].value} --seed ${tab().seeds[state.seed]} -- ${quoted}`;
}

function moveWipe() {
  const at = Number(byId("wipe").value);
  byId("right").style.clipPath = `inset(0 0 0 ${at}%)`;
  byId("edge").style.left = `${at}%`;
}

function stepPrompt(by) {
  const place = state.order.indexOf(detail.prompt) + by;
  if (place >= 0 && place < state.order.length) showPrompt(state.order[place]);
}

byId("wipe").addEventListener("input", moveWipe);
byId("previous").addEventListener("click", () => stepPrompt(-1));
byId("next").addEventListener("click", () => stepPrompt(1));
for (const side of ["left", "right"]) {
  byId(`${side}-lam`).addEventListener("change", (event) => {
    detail[side] = event.target.value.split(" ").map(Number);
    showSides();
  });
}
