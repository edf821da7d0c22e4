// Labels of replies as people read them.

import { say } from "./words.js";

/** "too-long" is shown as "too long". */
export function labelText(label) {
  const known = {
    good: say("good"),
    toxic: say("toxic"),
    wrong: say("wrong"),
    "off-topic": say("off-topic"),
    "too-long": say("too long"),
  };
  return known[label] ?? label.replaceAll(/[-_]/g, " ");
}
