// Which conversation the address of the page names, so that a reload and a bookmark open it again.

/** The id after "#c=", or 0. */
export function conversationInAddress() {
  return Number(/^#c=(\d+)$/.exec(location.hash)?.[1] ?? 0);
}

/** Name a conversation (0: none) in the address; the browser's way back leads to the one before. */
export function showInAddress(id) {
  const hash = id ? `#c=${id}` : "";
  if (location.hash !== hash) history.pushState(null, "", hash || location.pathname + location.search);
}
