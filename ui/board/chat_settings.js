// What the server does where a request leaves it open, and the labels that it offers.

import { call } from "./api.js";

const UNKNOWN = { labels: ["good", "toxic", "wrong", "off-topic", "too-long"] };

let asked = null;

/** The server's settings of the chat, asked once a page; an old answer is better than none. */
export async function chatSettings() {
  asked ??= call("GET", "/api/chat/settings");
  try {
    return await asked;
  } catch {
    asked = null;
    return UNKNOWN;
  }
}
