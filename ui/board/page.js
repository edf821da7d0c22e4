// The entry: waits for Gradio to lay out its columns, and fills each one once.

import { startChat } from "./chat.js";
import { drafts } from "./dom.js";
import { pollHealth, startHeader } from "./health.js";
import { startTraining } from "./training.js";

const TABS = "#chatrlhf-tabs [role=tablist] [role=tab]";

const FILLERS = {
  "chatrlhf-header": (host) => startHeader(host, () => openTab("Training")),
  "chatrlhf-chat": startChat,
  "chatrlhf-training": startTraining,
};

// Gradio adds a tab's content when the tab is first opened, and may lay it out anew.
const filled = new Map();

function fillHosts() {
  for (const [id, start] of Object.entries(FILLERS)) {
    const host = document.getElementById(id);
    if (!host) continue;
    const content = filled.get(id);
    if (!content) {
      const root = document.createElement("div");
      root.className = "chatrlhf";
      host.append(root);
      filled.set(id, root);
      start(root);
    } else if (!host.contains(content)) host.append(content);
  }
  restoreTab();
}

// --- the open tab survives a reload -----------------------------------------------------------

let isTabRestored = false;

function openTab(name) {
  [...document.querySelectorAll(TABS)].find((tab) => tab.textContent.trim() === name)?.click();
}

function restoreTab() {
  if (isTabRestored || !document.querySelector(TABS)) return;
  isTabRestored = true;
  const wanted = drafts.read("tab");
  if (wanted) openTab(wanted);
  document.addEventListener("click", (event) => {
    const tab = event.target.closest(TABS);
    if (tab) drafts.write("tab", tab.textContent.trim());
  });
}

new MutationObserver(fillHosts).observe(document.documentElement, { childList: true, subtree: true });
fillHosts();
pollHealth();
