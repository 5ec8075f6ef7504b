// Keys of the show. Nothing fires while somebody types, with a modifier held, or while a dialog is open.

const TYPING = "input:not([type=range]):not([type=file]), textarea, select, [contenteditable]";

export function listen(actions) {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || event.repeat) return;
    if (event.target.closest?.(TYPING) || document.querySelector("dialog[open]")) return;
    if (event.key === " " && event.target.closest?.("button, summary, a")) return; // which Space presses
    const action = actions[event.key.toLowerCase()];
    if (!action) return;
    event.preventDefault();
    action();
  });
  // A button that was clicked with a pointer gives the keyboard back, so that Space is the show's again.
  document.addEventListener("click", (event) => {
    if (event.detail > 0) event.target.closest?.("button")?.blur();
  });
}
