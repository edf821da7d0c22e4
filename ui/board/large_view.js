// The focus view: one reply over the whole page; arrows move to the others, digits still rank.

import { button, el } from "./dom.js";
import { openDialog } from "./dialogs.js";
import { ReplyText } from "./reply_text.js";
import { endOf } from "./turns.js";
import { say } from "./words.js";

const REFRESH_MS = 150; // the reply may still be written while it is open

/** Open the reply `shown` of a board large. */
export function openLarge(board, shown) {
  let current = shown;
  const number = el("span", { class: "number" });
  const end = el("span", { class: "end", "data-testid": "large-end" });
  const body = new ReplyText({ testid: "large-text", tabindex: "0" });
  const copyButton = button(say("Copy"), () => board.cards[current - 1].copy(), { key: "Y" });
  const dialog = openDialog(
    { class: "large", "aria-label": say("One reply, large"), "data-testid": "large-view" },
    el(
      "div",
      { class: "dialog-head" },
      number,
      end,
      el("span", { class: "space" }),
      copyButton,
      button(say("Previous"), () => move(-1), { key: "\u2190" }),
      button(say("Next"), () => move(1), { key: "\u2192" }),
      button(say("Close"), () => dialog.close(), { key: "Esc" }),
    ),
    body.element,
  );
  const show = () => {
    const reply = board.turn.replies[current - 1];
    const rank = board.cards[current - 1].pill.textContent;
    number.textContent = current;
    end.textContent = [rank, endOf(reply)].filter(Boolean).join(", ");
    if (body.text !== reply.text) body.set(reply.text);
  };
  const move = (step) => {
    const count = board.turn.replies.length;
    current = ((current - 1 + step + count) % count) + 1;
    body.element.scrollTop = 0;
    show();
  };
  dialog.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "ArrowLeft") move(-1);
    else if (event.key === "ArrowRight") move(1);
    else if (event.key === " " && !event.target.closest("button")) dialog.close();
    else if (event.key.toLowerCase() === "y") board.cards[current - 1].copy();
    else if (/^[1-8]$/.test(event.key)) board.pick(Number(event.key));
    else return;
    event.preventDefault();
    show();
  });
  const timer = setInterval(show, REFRESH_MS);
  dialog.addEventListener("close", () => {
    clearInterval(timer);
    board.cards[current - 1]?.option.focus({ preventScroll: true });
  });
  show();
  body.element.focus();
}
