// Ranking by hand: a card's handle is dragged to one of the places, which stand at the edge of the
// screen meanwhile. Only the handle takes the pointer, so that a finger on the text still scrolls.

import { el, overlayLayer } from "./dom.js";
import { rankText } from "./card.js";
import { rankOf } from "./order.js";
import { say } from "./words.js";

/** Begin to drag the reply `shown` of a board; `drop(shown, rank)` is called at a place. */
export function startDragging(event, board, shown, drop) {
  if (event.button !== 0) return;
  event.preventDefault();
  const handle = event.currentTarget;
  const card = handle.closest(".reply-card");
  const places = board.positions.map((_, index) => placeOf(board, index + 1));
  const rail = el(
    "div",
    { class: "drag-rail", "data-testid": "drag-rail" },
    el("span", {}, say("best")),
    places,
    el("span", {}, say("worst")),
  );
  const ghost = el("div", { class: "drag-ghost" }, say("Reply {n}", { n: shown }));
  overlayLayer().append(rail, ghost);
  card.classList.add("is-dragged");
  handle.setPointerCapture(event.pointerId);
  let over = null;

  const move = (moved) => {
    ghost.style.transform = `translate(${moved.clientX + 12}px, ${moved.clientY - 18}px)`;
    over = placeAt(places, moved.clientX, moved.clientY) ?? rankAt(board, shown, moved);
    for (const [index, place] of places.entries()) place.classList.toggle("is-over", over === index + 1);
  };
  const end = (ended) => {
    for (const [name, listener] of listeners) handle.removeEventListener(name, listener);
    document.removeEventListener("keydown", escape, true);
    rail.remove();
    ghost.remove();
    card.classList.remove("is-dragged");
    if (ended?.type === "pointerup" && over !== null) drop(shown, over);
  };
  const escape = (pressed) => {
    if (pressed.key !== "Escape") return;
    pressed.preventDefault();
    pressed.stopPropagation();
    end();
  };
  const listeners = [
    ["pointermove", move],
    ["pointerup", end],
    ["pointercancel", end],
    ["lostpointercapture", end],
  ];
  for (const [name, listener] of listeners) handle.addEventListener(name, listener);
  document.addEventListener("keydown", escape, true);
  move(event);
}

function placeOf(board, rank) {
  const order = board.shownOrder;
  const there = order ? board.positions.filter((shown) => rankOf(order, shown) === rank) : [];
  return el(
    "div",
    { class: "drag-place", "data-rank": rank, "data-testid": "drag-place" },
    el("b", {}, rankText(rank)),
    el("span", {}, there.join(" = ")),
  );
}

function placeAt(places, x, y) {
  const index = places.findIndex((place) => {
    const box = place.getBoundingClientRect();
    return x >= box.left && x <= box.right && y >= box.top && y <= box.bottom;
  });
  return index === -1 ? null : index + 1;
}

/** Dropped on a card that has a place, it takes that place. */
function rankAt(board, shown, { clientX, clientY }) {
  const card = document.elementFromPoint(clientX, clientY)?.closest(".reply-card");
  const other = card && board.grid.contains(card) ? Number(card.dataset.position) : null;
  if (other === null || other === shown || !board.shownOrder) return null;
  return rankOf(board.shownOrder, other);
}
