// Dialogs: opened as modal, closed by their button, by Escape and by a click beside them; focus goes back.

/** Makes every dialog of the page close the same way. */
export function watchPanels() {
  for (const dialog of document.querySelectorAll("dialog")) {
    dialog.addEventListener("click", (event) => {
      const isBeside = event.target === dialog && isOutside(dialog.getBoundingClientRect(), event);
      if (isBeside || event.target.closest("[data-close]")) dialog.close();
    });
  }
}

/** Opens a dialog with the focus on its heading, so that a screen reader says where one is. */
export function openPanel(dialog) {
  if (!dialog.open) dialog.showModal();
  dialog.querySelector("h2[tabindex]")?.focus({ preventScroll: true });
}

function isOutside(box, { clientX: x, clientY: y }) {
  return x < box.left || x > box.right || y < box.top || y > box.bottom;
}
