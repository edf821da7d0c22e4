// What the keys do to a board, on any screen that shows one.

import { openHelp } from "./keys.js";
import { openLarge } from "./large_view.js";
import { topReply } from "./turns.js";

/** By the names of keys.js, what each does to the board (null: nothing is shown to do it to). */
export function boardDeeds(board) {
  return {
    help: () => openHelp(),
    tie: () => board?.tie(),
    bad: () => board?.allBad(),
    stronger: () => board?.strengthen(1),
    weaker: () => board?.strengthen(-1),
    comment: () => board && board.positions.length > 1 && board.comment.open(),
    label: () => board && !board.focusedCard.labelButton.hidden && board.focusedCard.labels.toggle(),
    copy: () => board?.focusedCard.copy(),
    listen: () => board?.focusedCard.speak(),
    undo: () => board?.undo(),
    retry: () => board?.retry(),
    write: () => board?.demonstration.open(topReply(board.turn)?.text ?? ""),
    cut: () => board?.startCutting(),
    large: () => board && openLarge(board, board.focused),
    escape: () => board?.dropDraft(),
  };
}
