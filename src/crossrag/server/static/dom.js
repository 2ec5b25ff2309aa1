// Elements out of names, properties and children. A string becomes text, never markup: nothing here or elsewhere on
// the page parses HTML.

const SVG = "http://www.w3.org/2000/svg";

/**
 * One element. `on` holds listeners by event; `data` and `aria` hold attributes by their short names; null, undefined
 * and false leave a property or a child out.
 */
export function element(name, properties = {}, ...children) {
  return furnish(document.createElement(name), properties, children);
}

/** The same for the shapes of a drawing. */
export function shape(name, properties = {}, ...children) {
  return furnish(document.createElementNS(SVG, name), properties, children);
}

/** What `children` are, in place of what the element held. */
export function fill(parent, ...children) {
  parent.replaceChildren();
  appendAll(parent, children);
  return parent;
}

/** The element with this id, which is in index.html. */
export function byId(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`index.html has no #${id}`);
  return found;
}

/** A small drawing of the sprite in index.html; decoration, so that no screen reader reads it. */
export function icon(name) {
  return shape("svg", { class: "icon", "aria-hidden": "true" }, shape("use", { href: `#icon-${name}` }));
}

/** A button with a drawing whose meaning is said to everybody: on hover, and to screen readers. */
export function iconButton(name, label, onClick, properties = {}) {
  return element(
    "button",
    { type: "button", class: "quiet", title: label, "aria-label": label, on: { click: onClick }, ...properties },
    icon(name),
  );
}

function furnish(made, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (!isThere(value)) continue;
    if (name === "on") for (const [event, run] of Object.entries(value)) made.addEventListener(event, run);
    else if (name === "data") Object.assign(made.dataset, value);
    else made.setAttribute(name, value === true ? "" : String(value));
  }
  appendAll(made, children);
  return made;
}

/** One by one: a call takes some ten thousand arguments and no more, and a text may have more lines. */
function appendAll(parent, children) {
  for (const child of children.flat(Infinity)) if (isThere(child)) parent.append(child);
}

function isThere(value) {
  return value !== null && value !== undefined && value !== false;
}
