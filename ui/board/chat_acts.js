// What the keys of the chat screen, and the buttons that stand for them, do.

import { boardDeeds } from "./board_deeds.js";
import { drafts } from "./dom.js";
import { say } from "./words.js";

/** Do what a key or its button does; see keys.js for the names. */
export function act(chat, name) {
  const board = chat.active;
  const deeds = {
    ...boardDeeds(board),
    compose: () => chat.composer.field.focus(),
    regenerate: () => chat.asking.regenerate(),
    rest: () => rest(board),
    goon: () => board && goOn(chat, board.focusedCard.reply),
    skip: () => skip(chat, board),
  };
  deeds[name]();
}

function rest(board) {
  if (!board) return;
  if (board.isPartial) board.restEqual();
  else if (!board.shownOrder && board.grid.contains(document.activeElement)) board.pick(board.focused);
}

function skip(chat, board) {
  if (!board || board.draft || board.turn.ranking || board.positions.length < 2) return;
  drafts.write(`skipped:${board.turn.id}`, "yes");
  showSkipped(board);
  chat.rankBar.show(board);
  chat.composer.field.focus();
}

/** Say that a turn was skipped, also after a reload. */
export function showSkipped(board) {
  if (!board.receipt && drafts.read(`skipped:${board.turn.id}`))
    board.receipt = say("Skipped. The chat goes on from a reply picked at random.");
}

/** Have the next message go on from this reply; a second time, from the best one again. */
export function goOn(chat, reply) {
  if (reply.state !== "complete" && reply.state !== "cancelled") return;
  chat.goOnFrom = chat.goOnFrom === reply ? null : reply;
  for (const { board } of chat.views.values())
    for (const card of board.cards)
      card.goOnButton.setAttribute("aria-pressed", String(card.reply === chat.goOnFrom));
  chat.showPlaceholder();
  if (chat.goOnFrom) chat.composer.field.focus();
}
