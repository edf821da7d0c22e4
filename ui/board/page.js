// The entry: waits for Gradio to lay out its columns, and fills each one once.

import { startChat } from "./chat.js";
import { drafts } from "./dom.js";
import { startEvidence } from "./evidence.js";
import { pollHealth, startHeader } from "./health.js";
import { startAccount } from "./me.js";
import { startPeople } from "./people.js";
import { startQueue } from "./queue.js";
import { startRatings } from "./ratings.js";
import { startTheme } from "./theme.js";
import { startTraining } from "./training.js";
import { language, say } from "./words.js";

const TABS = "#chatrlhf-tabs [role=tablist] [role=tab]";

// By the ids that the server's layout gives the tabs.
const NAMES = {
  chat: say("Chat"),
  queue: say("Queue"),
  ratings: say("Ratings"),
  training: say("Training"),
  evidence: say("Is it better?"),
  people: say("People"),
};

const FILLERS = {
  "chatrlhf-header": (host) => {
    startHeader(host, () => openTab("training"));
    startAccount(host, () => openTab("people"));
  },
  "chatrlhf-chat": (host) => startChat(host, () => openTab("queue")),
  "chatrlhf-queue": startQueue,
  "chatrlhf-ratings": (host) => startRatings(host, openConversation),
  "chatrlhf-training": startTraining,
  "chatrlhf-evidence": (host) => startEvidence(host, openConversation),
  "chatrlhf-people": startPeople,
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
  nameTabs();
  restoreTab();
}

/** Gradio wrote the tabs' names in English. */
function nameTabs() {
  for (const tab of document.querySelectorAll(TABS)) {
    const name = NAMES[tab.dataset.tabId];
    const text = [...tab.childNodes].find((node) => node instanceof Text && node.data.trim());
    if (!name || !text || text.data === name) continue;
    text.data = name;
    if (tab.ariaSelected === "true") bringIntoView(tab);
  }
}

// --- the open tab survives a reload -----------------------------------------------------------

let isTabRestored = false;

function openTab(id) {
  const wanted = document.querySelector(`${TABS}[data-tab-id="${id}"]`);
  wanted?.click();
  bringIntoView(wanted);
}

/** On a phone the row of tabs is wider than the screen. */
function bringIntoView(tab) {
  tab?.scrollIntoView({ inline: "center", block: "nearest" });
}

/** Show a conversation, also one that is open already and has a new turn. */
function openConversation(id) {
  openTab("chat");
  location.hash = "";
  setTimeout(() => (location.hash = `#c=${id}`), 50);
}

function restoreTab() {
  if (isTabRestored || !document.querySelector(TABS)) return;
  isTabRestored = true;
  const wanted = drafts.read("tab");
  if (wanted) openTab(wanted);
  document.addEventListener("click", (event) => {
    const tab = event.target.closest(TABS);
    if (!tab) return;
    drafts.write("tab", tab.dataset.tabId);
    bringIntoView(tab);
  });
}

startTheme();
document.documentElement.lang = language;
new MutationObserver(fillHosts).observe(document.documentElement, { childList: true, subtree: true });
fillHosts();
pollHealth();
