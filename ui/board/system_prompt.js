// The system prompt above a conversation. Ratings belong to the prompt they were given under, so
// another prompt begins another conversation.

import { call } from "./api.js";
import { button, el, showText } from "./dom.js";
import { say } from "./words.js";

/** The prompt, folded; `restart()` begins a conversation with a changed one. */
export function systemPromptView(prompt, restart) {
  const text = el("div", { class: "system-prompt", dir: "auto" });
  showText(text, prompt);
  return el(
    "details",
    { "data-testid": "system-prompt-shown" },
    el("summary", { class: "hint" }, say("System prompt")),
    text,
    button(say("Change it in a new chat"), restart, { kind: "link" }),
  );
}

/**
 * The conversation `known`, or a new one, with a system prompt (null: none was asked for). One
 * whose first message was refused gets its prompt anew. Raises ApiError.
 */
export async function conversationWith(known, prompt) {
  if (!known) {
    const { id } = await call("POST", "/api/conversations", prompt ? { system_prompt: prompt } : {});
    return { id, systemPrompt: prompt ?? "" };
  }
  if (prompt !== null && prompt !== known.systemPrompt) {
    await call("PATCH", `/api/conversations/${known.id}`, { system_prompt: prompt });
    known.systemPrompt = prompt;
  }
  return known;
}
