// The keys of the queue, for the overlay that lists them.

import { say } from "./words.js";

/** What the keys of the queue do, as [key, words]. */
export const queueKeys = () => [
  ["1 - 8", say("rank the next best reply; the last one follows by itself")],
  ["=", say("tie the next reply with the one before")],
  ["Enter", say("after a number: the rest are equally worse; after an order: the next prompt")],
  ["N", say("the next prompt")],
  ["0", say("all are bad")],
  ["+ -", say("how strongly you mean the order, 1 to 5")],
  ["C", say("comment on the order")],
  ["F", say("labels of the focused reply, such as toxic or wrong")],
  ["U", say("undo; where there is nothing to undo, back to the prompt before")],
  ["E", say("write your own reply, or better the best one")],
  ["S", say("skip: another prompt instead of this one")],
  ["X 1", say("cut reply 1 while it is being written")],
  ["Y", say("copy the focused reply")],
  ["L", say("read the focused reply aloud")],
  [say("Arrows"), say("move between the replies")],
  [say("Space"), say("open a reply large; arrows move")],
  ["?", say("this list")],
];
