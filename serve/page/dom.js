// Elements and messages. Text reaches the page as text alone: nothing here or elsewhere parses HTML.

/**
 * An element with attributes and children (elements or strings). A function is a listener, as in {onclick: f};
 * true sets an attribute without a value; false, null and undefined leave it out.
 */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

export const byId = (id) => document.getElementById(id);

/** Has a screen reader say a text when it has finished what it says now. */
export function announce(text) {
  byId("status").textContent = text;
}

/** A box that says what went wrong; announced at once. */
export function problemBox(problem) {
  return element("p", { class: "problem", role: "alert", dir: "auto" }, problem.message);
}
