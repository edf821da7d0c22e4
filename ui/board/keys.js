// The keys of the chat screen, the overlay that lists them, and the large view of one reply.

import { button, el, isShown, overlayLayer, showText } from "./dom.js";
import { endOf } from "./turns.js";

// Letters and signs with what they do; digits pick a reply.
const ACTIONS = {
  "=": "tie",
  Enter: "rest",
  0: "bad",
  u: "undo",
  r: "regenerate",
  e: "write",
  s: "skip",
  x: "cut",
  " ": "large",
  "?": "help",
  "/": "compose",
  Escape: "escape",
};

const HELP = [
  ["1 - 8", "rank the next best reply; the last one follows by itself"],
  ["=", "tie the next reply with the one before"],
  ["Enter", "after a number: the rest are equally worse"],
  ["0", "all are bad"],
  ["U", "undo"],
  ["E", "write your own reply"],
  ["R", "ask again for new replies"],
  ["S", "skip: leave this turn unrated"],
  ["X 1", "cut reply 1 while it is being written"],
  ["Space", "open a reply large; arrows move"],
  ["/", "go to the message field; Esc leaves it"],
  ["?", "this list"],
];

/** Listen on the page. `act(name)` and `pick(shown)` are called while `screen` is shown. */
export function listenForKeys(screen, { act, pick }) {
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || event.isComposing)
      return;
    if (!isShown(screen) || document.querySelector("dialog[open]")) return;
    if (event.target.closest("input, textarea, select, [contenteditable]")) return;
    const isOnControl = event.target.closest("button, a, summary, [role=tab]");
    if (isOnControl && (event.key === "Enter" || event.key === " ")) return;
    if (/^[1-8]$/.test(event.key)) pick(Number(event.key));
    else {
      const name = ACTIONS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
      if (!name) return;
      act(name);
    }
    event.preventDefault();
  });
}

// --- dialogs ----------------------------------------------------------------------------------

function openDialog(attributes, ...children) {
  const dialog = el("dialog", { ...attributes, onclose: () => dialog.remove() }, ...children);
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
  overlayLayer().append(dialog);
  dialog.showModal();
  return dialog;
}

/** The list of keys. */
export function openHelp() {
  const rows = HELP.map(([key, text]) => [el("dt", {}, el("kbd", {}, key)), el("dd", {}, text)]);
  const dialog = openDialog(
    { class: "help", "aria-label": "Keys", "data-testid": "help-overlay" },
    el(
      "div",
      { class: "dialog-head" },
      el("h2", {}, "Keys"),
      button("Close", () => dialog.close(), { key: "Esc" }),
    ),
    el("dl", {}, rows),
    el(
      "p",
      { class: "hint" },
      "Three keys rank four replies. The order is saved by itself, and can be changed at any time.",
    ),
  );
  dialog.addEventListener("keydown", (event) => {
    if (event.key === "?") dialog.close();
  });
}

/** One reply over the whole page; arrows move to the others, digits still rank. */
export function openLarge(board, shown) {
  let current = shown;
  const number = el("span", { class: "number" });
  const end = el("span", { class: "end" });
  const text = el("div", { class: "reply-text", dir: "auto", tabindex: "0" });
  const dialog = openDialog(
    { class: "large", "aria-label": "One reply, large", "data-testid": "large-view" },
    el(
      "div",
      { class: "dialog-head" },
      number,
      end,
      el("span", { class: "space" }),
      button("Previous", () => move(-1), { key: "\u2190" }),
      button("Next", () => move(1), { key: "\u2192" }),
      button("Close", () => dialog.close(), { key: "Esc" }),
    ),
    text,
  );
  const show = () => {
    const reply = board.turn.replies[current - 1];
    const rank = board.cards[current - 1].pill.textContent;
    number.textContent = current;
    end.textContent = [rank, endOf(reply)].filter(Boolean).join(", ");
    if (text.dataset.shown !== `${current}:${reply.text.length}`) showText(text, reply.text);
    text.dataset.shown = `${current}:${reply.text.length}`;
  };
  const move = (step) => {
    const count = board.turn.replies.length;
    current = ((current - 1 + step + count) % count) + 1;
    show();
  };
  dialog.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "ArrowLeft") move(-1);
    else if (event.key === "ArrowRight") move(1);
    else if (event.key === " " && !event.target.closest("button")) dialog.close();
    else if (/^[1-8]$/.test(event.key)) board.pick(Number(event.key));
    else return;
    event.preventDefault();
    show();
  });
  // The reply may still be written while it is open.
  const timer = setInterval(show, 150);
  dialog.addEventListener("close", () => clearInterval(timer));
  show();
  text.focus();
}
