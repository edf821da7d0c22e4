// The keys of the chat screen, and the overlay that lists them.

import { dialogHead, openDialog } from "./dialogs.js";
import { el, isShown } from "./dom.js";
import { say } from "./words.js";

export { openLarge } from "./large_view.js";

// Letters and signs with what they do; digits pick a reply.
const ACTIONS = {
  "=": "tie",
  Enter: "rest",
  0: "bad",
  "+": "stronger",
  "-": "weaker",
  u: "undo",
  r: "regenerate",
  e: "write",
  f: "label",
  c: "comment",
  s: "skip",
  x: "cut",
  y: "copy",
  l: "listen",
  g: "goon",
  " ": "large",
  "?": "help",
  "/": "compose",
  Escape: "escape",
};

/** What the keys of the chat do, as [key, words]. */
const chatKeys = () => [
  ["1 - 8", say("rank the next best reply; the last one follows by itself")],
  ["=", say("tie the next reply with the one before")],
  ["Enter", say("after a number: the rest are equally worse")],
  ["0", say("all are bad")],
  ["+ -", say("how strongly you mean the order, 1 to 5")],
  ["C", say("comment on the order")],
  ["F", say("labels of the focused reply, such as toxic or wrong")],
  ["U", say("undo")],
  ["E", say("write your own reply, or better the best one")],
  ["R", say("ask again for new replies")],
  ["S", say("skip: leave this turn unrated")],
  ["X 1", say("cut reply 1 while it is being written")],
  ["G", say("go on from the focused reply")],
  ["Y", say("copy the focused reply")],
  ["L", say("read the focused reply aloud")],
  [say("Arrows"), say("move between the replies")],
  [say("Space"), say("open a reply large; arrows move")],
  ["/", say("go to the message field; Esc leaves it")],
  ["?", say("this list")],
];

/** Listen on the page. `act(name)` and `pick(shown)` are called while `screen` is shown. */
export function listenForKeys(screen, { act, pick }) {
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || event.isComposing)
      return;
    if (!isShown(screen) || document.querySelector("dialog[open]")) return;
    if (event.target.closest("input, textarea, select, [contenteditable]")) return;
    const isOnControl = event.target.closest("button, a, summary, pre, .table-scroll, [role=tab]");
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

/** The list of keys, those of the chat unless others are given. */
export function openHelp(keys = chatKeys()) {
  const rows = keys.map(([key, text]) => [el("dt", {}, el("kbd", {}, key)), el("dd", {}, text)]);
  const dialog = openDialog(
    { class: "help", "aria-label": say("Keys"), "data-testid": "help-overlay" },
    dialogHead(say("Keys"), () => dialog.close()),
    el("dl", {}, rows),
    el(
      "p",
      { class: "hint" },
      say("Three keys rank four replies. The order is saved by itself, and can be changed at any time."),
    ),
  );
  dialog.addEventListener("keydown", (event) => {
    if (event.key === "?") dialog.close();
  });
}
