// Reading a reply aloud, by the browser's own voices.

import { say } from "./words.js";

const PART = 240; // characters; longer utterances are cut off by some browsers

let current = null; // the button that reads now

/** Whether this browser can read aloud. */
export const canSpeak = "speechSynthesis" in window;

/** Read a text aloud, or stop when its button is pressed again. */
export function speak(text, speakButton) {
  const wasReading = current === speakButton;
  stop();
  if (wasReading) return;
  current = speakButton;
  speakButton.setAttribute("aria-pressed", "true");
  speakButton.textContent = say("Stop reading");
  const parts = partsOf(spoken(text));
  parts.forEach((part, index) => {
    const utterance = new SpeechSynthesisUtterance(part);
    const isOurs = () => current === speakButton;
    if (index === parts.length - 1) utterance.onend = () => isOurs() && stop();
    utterance.onerror = () => isOurs() && stop();
    speechSynthesis.speak(utterance);
  });
  if (!parts.length) stop();
}

function stop() {
  speechSynthesis.cancel();
  if (!current) return;
  current.setAttribute("aria-pressed", "false");
  current.textContent = say("Listen");
  current = null;
}

/** Signs of Markdown are not to be heard. */
function spoken(text) {
  return text
    .replace(/```[^]*?(?:```|$)/g, say("(code)"))
    .replace(/[*_`#>|~]+/g, " ")
    .replace(/\[([^\]]*)\]\([^)]*\)/g, "$1");
}

function partsOf(text) {
  const parts = [];
  for (const sentence of text.split(/(?<=[.!?\n])\s+/)) {
    const last = parts.at(-1);
    if (last !== undefined && last.length + sentence.length < PART) parts[parts.length - 1] = `${last} ${sentence}`;
    else if (sentence.trim()) parts.push(sentence.trim());
  }
  return parts;
}
