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
