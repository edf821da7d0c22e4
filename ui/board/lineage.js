// Which version came from which, as a tree drawn beside the rows of a table.

import { el } from "./dom.js";

const LANE = 14;
const AT = 9; // of the first lane's middle, in pixels from the left
const DOT = 19; // of a row's dot, in pixels from its top

/**
 * For each version, newest first: its lane, the lanes that pass by, and those that end in it.
 *
 * A version stands in the lane of its newest child; other children come in from lanes of their own.
 */
export function lineage(versions) {
  const names = new Set(versions.map(({ name }) => name));
  const lanes = []; // of each lane, the version it leads down to; null: free
  return versions.map((version) => {
    const mine = lanes.flatMap((wanted, index) => (wanted === version.name ? [index] : []));
    const free = lanes.indexOf(null);
    const lane = mine[0] ?? (free >= 0 ? free : lanes.length);
    const passing = lanes.flatMap((wanted, index) =>
      wanted !== null && wanted !== version.name ? [index] : [],
    );
    for (const other of mine) lanes[other] = null;
    const parent = names.has(version.parent) ? version.parent : null;
    lanes[lane] = parent;
    return { lane, passing, joining: mine.slice(1), isFromAbove: mine.length > 0, hasParent: parent !== null };
  });
}

/** The cell of one row; `width` is the number of lanes of the whole table. */
export function lineageCell(row, width, isLive) {
  const line = (index, from, to) => {
    const node = el("i", { class: "lineage-line" });
    node.style.left = `${AT + index * LANE}px`;
    node.style.top = from;
    node.style.bottom = to;
    return node;
  };
  const dot = el("i", { class: isLive ? "lineage-dot is-live" : "lineage-dot" });
  dot.style.left = `${AT + row.lane * LANE}px`;
  dot.style.top = `${DOT}px`;
  const joins = row.joining.flatMap((index) => {
    const across = el("i", { class: "lineage-join" });
    across.style.left = `${AT + Math.min(index, row.lane) * LANE}px`;
    across.style.width = `${Math.abs(index - row.lane) * LANE}px`;
    across.style.top = `${DOT}px`;
    return [line(index, "0", `calc(100% - ${DOT}px)`), across];
  });
  const graph = el(
    "div",
    { class: "lineage" },
    row.passing.map((index) => line(index, "0", "0")),
    row.isFromAbove && line(row.lane, "0", `calc(100% - ${DOT}px)`),
    row.hasParent && line(row.lane, `${DOT}px`, "0"),
    joins,
    dot,
  );
  const cell = el("td", { class: "lineage-cell", "aria-hidden": "true" }, graph);
  cell.style.minWidth = `${AT * 2 + (width - 1) * LANE}px`;
  return cell;
}
