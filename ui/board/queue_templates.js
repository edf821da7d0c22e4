// The task templates as the server has them, with their words in the reader's language.

import { call } from "./api.js";
import { el } from "./dom.js";
import { say } from "./words.js";

const WORDS = {
  chat: () => say("Chat"),
  summarise: () => say("Summarise"),
  rewrite: () => say("Rewrite"),
  classify: () => say("Classify"),
  answer: () => say("Answer from a text"),
};

const FIELDS = {
  "chat.text": () => say("Message"),
  "summarise.text": () => say("Text to summarise"),
  "rewrite.text": () => say("Text to rewrite"),
  "rewrite.manner": () => say("How"),
  "classify.text": () => say("Text to classify"),
  "classify.classes": () => say("Classes"),
  "answer.text": () => say("Text that has the answer"),
  "answer.question": () => say("Question"),
};

let known = null;

/** All templates, fetched once. Raises ApiError. */
export async function loadTemplates() {
  known ??= await call("GET", "/api/prompts/templates");
  return known;
}

export function titleOf(template) {
  return WORDS[template.name]?.() ?? template.title;
}

export function labelOf(template, field) {
  return FIELDS[`${template.name}.${field.name}`]?.() ?? field.label;
}

/** Options of a select of templates. */
export function templateOptions(templates) {
  return templates.map((one) => el("option", { value: one.name }, titleOf(one)));
}

/** Tags as a person types them: "a, b". */
export function tagsOf(text) {
  return [...new Set(text.split(",").map((tag) => tag.trim()).filter(Boolean))];
}
