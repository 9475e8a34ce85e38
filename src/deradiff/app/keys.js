// Voting by keys: arrows choose a side, down or space is a tie; never while something is typed or another tab is shown.
document.addEventListener("keydown", (event) => {
  const keys = { ArrowLeft: "left", ArrowRight: "right", ArrowDown: "tie", " ": "tie" };
  const side = keys[event.key];
  if (!side || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input, textarea, select, button, [contenteditable], [role=tab], [role=listbox]")) {
    if (!event.target.closest("#vote-left, #vote-right, #vote-tie")) return;
    if (event.key === " ") return; // presses the button that has the focus
  }
  const button = document.querySelector(`#vote-${side}`);
  if (!button || button.offsetParent === null || !document.querySelector("#pair .pair")) return;
  event.preventDefault();
  button.click();
});
