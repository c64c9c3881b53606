// Tabs by the ARIA pattern: one of them in the tab order, arrow keys between them. The open one is in the address.

import { byId } from "./dom.js";

/** `onOpen(id)` is called with the id of each panel that is opened. */
export function setUpTabs(onOpen) {
  const tabs = [...document.querySelectorAll("[role=tab]")];
  const open = (id) => openTab(tabs, id, onOpen);
  for (const tab of tabs) {
    tab.addEventListener("click", () => open(tab.getAttribute("aria-controls")));
    tab.addEventListener("keydown", (event) => {
      const next = neighbour(tabs, tab, event.key);
      if (!next) return;
      event.preventDefault();
      next.focus();
      open(next.getAttribute("aria-controls"));
    });
  }
  const named = () =>
    tabs.some((tab) => `#${tab.getAttribute("aria-controls")}` === location.hash) ? location.hash.slice(1) : "ask";
  addEventListener("hashchange", () => open(named()));
  open(named());
  return open;
}

function openTab(tabs, id, onOpen) {
  for (const tab of tabs) {
    const selected = tab.getAttribute("aria-controls") === id;
    tab.setAttribute("aria-selected", selected);
    tab.tabIndex = selected ? 0 : -1;
    byId(tab.getAttribute("aria-controls")).hidden = !selected;
  }
  const hash = id === "ask" ? " " : `#${id}`;
  history.replaceState(null, "", hash.trim() || location.pathname + location.search);
  onOpen(id);
}

function neighbour(tabs, tab, key) {
  const at = tabs.indexOf(tab);
  const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: tabs.length - 1 }[key];
  return to === undefined ? null : tabs.at(to % tabs.length);
}
