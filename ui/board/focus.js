// Arrow keys in a listbox whose options are laid out in columns; one option is a tab stop.

/** Move the focus as an arrow, Home or End key says, if the event is one. */
export function moveFocus(grid, event) {
  const options = [...grid.querySelectorAll("[role=option]")];
  const index = options.indexOf(event.target);
  const next =
    index === -1 ? firstOf(grid, event) : index + stepOf(grid, event.key, index, options.length - 1);
  if (next === index || next < 0 || next >= options.length) return;
  event.preventDefault();
  for (const option of options) option.setAttribute("tabindex", "-1");
  options[next].setAttribute("tabindex", "0");
  options[next].focus();
}

/** From the grid itself any arrow leads to the first option. */
function firstOf(grid, event) {
  return event.target === grid && event.key.startsWith("Arrow") ? 0 : -1;
}

function stepOf(grid, key, index, last) {
  const columns = getComputedStyle(grid).gridTemplateColumns.split(" ").length;
  const steps = {
    ArrowLeft: -1,
    ArrowRight: 1,
    ArrowUp: -columns,
    ArrowDown: columns,
    Home: -index,
    End: last - index,
  };
  return steps[key] ?? 0;
}

/**
 * Make a list of entries with buttons one stop of Tab: arrows lead to the other entries, Tab to
 * the other buttons of the entry that has the focus.
 */
export function walkEntries(list) {
  list.addEventListener("focusin", (event) => setStop(list, event.target.closest("li")));
  list.addEventListener("keydown", (event) => {
    const entries = [...list.children];
    const index = entries.indexOf(event.target.closest("li"));
    const places = { ArrowUp: index - 1, ArrowDown: index + 1, Home: 0, End: entries.length - 1 };
    const next = entries[places[event.key]]?.querySelector("button");
    if (!next || event.target.closest("input")) return;
    event.preventDefault();
    event.stopPropagation();
    next.focus();
  });
}

/** Draw the entries anew by `draw()`; the focus stays at its entry, or at the one in its place. */
export function redrawEntries(list, draw) {
  const before = list.contains(document.activeElement) ? document.activeElement.closest("li") : null;
  const index = [...list.children].indexOf(before);
  draw();
  const same = before && list.querySelector(`li[data-id="${before.dataset.id}"]`);
  const next = same ?? list.children[Math.min(index, list.children.length - 1)];
  setStop(list, list.querySelector("li:has([aria-current])") ?? list.firstElementChild);
  if (before) next?.querySelector("button")?.focus({ preventScroll: true });
}

function setStop(list, stop) {
  for (const entry of list.children)
    for (const one of entry.querySelectorAll("button")) one.tabIndex = entry === stop ? 0 : -1;
}
