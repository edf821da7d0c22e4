// What the browser keeps: drafts for this tab, choices for this browser.

// Storage may be forbidden; then nothing is kept.
const kept = (storage) => ({
  read(key) {
    try {
      return storage().getItem(`chatrlhf:${key}`) ?? "";
    } catch {
      return "";
    }
  },
  write(key, text) {
    try {
      if (text) storage().setItem(`chatrlhf:${key}`, text);
      else storage().removeItem(`chatrlhf:${key}`);
    } catch {
      // Private windows may refuse; what was written is still on the page.
    }
  },
});

/** What survives a reload of this tab: texts that are not sent yet, the open place. */
export const drafts = kept(() => sessionStorage);

/** How a person likes the page, in this browser. */
export const choices = kept(() => localStorage);
