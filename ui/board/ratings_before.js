// What came before: the conversation up to a rated turn, and earlier orders of the same rating.

import { el, showText } from "./dom.js";
import { replyText } from "./reply_text.js";
import { moment } from "./times.js";
import { say } from "./words.js";

/** The messages before a turn, folded; null where there are none. */
export function messagesBefore(messages) {
  if (!messages.length) return null;
  const who = { system: say("System prompt"), user: say("Asked"), assistant: say("Answered") };
  return el(
    "details",
    { class: "before", "data-testid": "rating-before" },
    el("summary", {}, messages.length === 1 ? say("1 message before") : say("{n} messages before", { n: messages.length })),
    messages.map(({ role, content }) => {
      const text = role === "assistant" ? replyText(content) : asked(content);
      return el("div", { class: "before-message", "data-role": role }, el("span", { class: "hint" }, who[role]), text);
    }),
  );
}

/** Earlier orders, newest first; null where there are none. */
export function earlierOrders(rankings) {
  if (!rankings.length) return null;
  const states = { superseded: say("changed since"), withdrawn: say("taken back") };
  const items = [...rankings]
    .reverse()
    .map((one) =>
      el(
        "li",
        { "data-testid": "earlier-order" },
        el("span", { class: "order" }, one.all_bad ? say("all bad") : one.order),
        el("span", { class: "hint" }, `${moment(one.created_at)}, ${states[one.state] ?? one.state}`),
      ),
    );
  return el("details", { class: "before" }, el("summary", {}, say("Earlier orders")), el("ul", {}, items));
}

/** What a person wrote, as it is. */
function asked(content) {
  const text = el("div", { class: "reply-text is-plain", dir: "auto" });
  showText(text, content);
  return text;
}
