// The dialog that asks before an item is deleted.

import { byId } from "./dom.js";

/** Whether the deletion is wanted. Escape and "Cancel" say no. */
export function confirmDeletion(title) {
  const dialog = byId("confirm");
  byId("confirm-question").textContent = `Delete “${title}”?`;
  dialog.returnValue = ""; // of the last time
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "confirm"), { once: true });
  });
}
