// Estimates with their intervals, in SVG: rows of dots with whiskers, and a curve with a band.

import { el, svg } from "./dom.js";

const WIDTH = 300;
const ROW = 22;
const HEIGHT = 110;

/**
 * Rows of estimates on one axis.
 *
 * rows: {label, value, low, high, text, extra} with `extra` {value, low, high} drawn hollow below;
 * null ends run to the edge. axis: {low, high, mark, format}; `mark` is a line across all rows.
 */
export function intervalRows(rows, axis) {
  const x = (value) => ((clamp(value, axis.low, axis.high) - axis.low) / (axis.high - axis.low)) * WIDTH;
  const marks = [axis.low, axis.mark, axis.high];
  return el(
    "div",
    { class: "intervals", "data-testid": "intervals" },
    rows.map((row) =>
      el(
        "div",
        { class: "interval-row", "data-testid": "interval", "data-name": row.name ?? row.label },
        el("span", { class: "interval-label" }, row.label),
        svg(
          "svg",
          {
            viewBox: `0 0 ${WIDTH} ${ROW}`,
            preserveAspectRatio: "none",
            role: "img",
            "aria-label": `${row.label}: ${row.text}`,
          },
          svg("line", { class: "interval-mark", x1: x(axis.mark), x2: x(axis.mark), y1: 0, y2: ROW }),
          whisker(row, x, axis, row.extra ? 7 : ROW / 2, "interval-whisker"),
          row.extra && whisker(row.extra, x, axis, 16, "interval-whisker is-extra"),
        ),
        dots(row, x),
        el("span", { class: "interval-text" }, row.text),
      ),
    ),
    el(
      "div",
      { class: "interval-row interval-axis", "aria-hidden": "true" },
      el("span", {}),
      el(
        "div",
        { class: "interval-ticks" },
        marks.map((value) => tick(axis.format(value), (x(value) / WIDTH) * 100)),
      ),
    ),
  );
}

// SVG stretches to the width of the page, which would make ellipses of circles: dots are boxes.
function dots(row, x) {
  return el(
    "div",
    { class: "interval-dots", "aria-hidden": "true" },
    [
      [row, row.extra ? 7 : ROW / 2, "interval-dot"],
      row.extra && [row.extra, 16, "interval-dot is-extra"],
    ]
      .filter(Boolean)
      .map(([one, y, name]) => {
        const dot = el("i", { class: name });
        dot.style.left = `${(x(one.value) / WIDTH) * 100}%`;
        dot.style.top = `${(y / ROW) * 100}%`;
        return dot;
      }),
  );
}

function whisker({ low, high }, x, axis, y, name) {
  return svg("line", { class: name, x1: x(low ?? axis.low), x2: x(high ?? axis.high), y1: y, y2: y });
}

function tick(text, percent) {
  const node = el("span", {}, text);
  node.style.left = `${percent}%`;
  return node;
}

/** A running estimate with its interval as a band; `points` are {value, low, high}. */
export function bandChart(points, { mark, label, first, last }) {
  const x = (index) => (points.length > 1 ? (index / (points.length - 1)) * WIDTH : WIDTH / 2);
  const y = (value) => HEIGHT - clamp(value, 0, 1) * HEIGHT;
  const upper = points.map((point, index) => `${x(index).toFixed(1)},${y(point.high).toFixed(1)}`);
  const lower = points.map((point, index) => `${x(index).toFixed(1)},${y(point.low).toFixed(1)}`);
  const middle = points.map((point, index) => `${x(index).toFixed(1)},${y(point.value).toFixed(1)}`);
  return el(
    "div",
    { class: "band-chart", "data-testid": "band-chart" },
    el(
      "div",
      { class: "chart-plot" },
      svg(
        "svg",
        {
          viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
          preserveAspectRatio: "none",
          role: "img",
          "aria-label": label,
        },
        svg("polygon", { class: "band", points: [...upper, ...lower.reverse()].join(" ") }),
        svg("line", { class: "chart-zero", x1: 0, x2: WIDTH, y1: y(mark), y2: y(mark) }),
        svg("polyline", { class: "chart-line", points: middle.join(" ") }),
      ),
      el("span", { class: "axis top" }, "100%"),
      el("span", { class: "axis middle" }, `${Math.round(mark * 100)}%`),
      el("span", { class: "axis bottom" }, "0%"),
    ),
    el("div", { class: "chart-foot" }, el("span", {}, first), el("span", {}, last)),
  );
}

function clamp(value, low, high) {
  return Math.min(Math.max(value, low), high);
}

/** "74%" */
export function percent(value) {
  return value == null ? "" : `${Math.round(value * 100)}%`;
}

/** "57-86%"; empty where nothing bounds it. */
export function range(low, high) {
  return low == null || high == null ? "" : `${Math.round(low * 100)}\u2013${Math.round(high * 100)}%`;
}
