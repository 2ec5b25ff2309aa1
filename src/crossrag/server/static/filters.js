// Rows of field, comparison and value -> a filter in the service's language, and chips that say what is in use.

import { byId, element, fill, iconButton } from "./dom.js";

const KEY = /^[\p{L}\p{N}_-]+(\.[\p{L}\p{N}_-]+)*$/u;
const RESERVED = new Set(["and", "or", "not"]);
const COMPARISONS = [
  ["is", "is"],
  ["not", "is not"],
  ["prefix", "begins with"],
  ["gte", "is at least"],
  ["lte", "is at most"],
];
const ALWAYS = ["source", "title", "page"];

const rows = [];
let names = ALWAYS;

let changed = () => {};

/** All complete rows, as they are told in an address: field, comparison, value. */
export function currentConditions() {
  return rows.filter(isComplete).map((row) => ({ ...row, value: row.value.trim() }));
}

/** A condition in words. */
export function wordsOf({ key, comparison, value }) {
  return `${key} ${COMPARISONS.find(([name]) => name === comparison)[1]} ${value.trim()}`;
}

/** Puts conditions in place of the rows. Those that no row can hold are given back, and do not narrow anything. */
export function takeConditions(conditions) {
  const isKnown = (each) => isComplete(each) && COMPARISONS.some(([name]) => name === each.comparison);
  rows.splice(0, rows.length, ...conditions.filter(isKnown));
  drawChips();
  return conditions.filter((each) => !isKnown(each));
}

/** The filter of all complete rows, or null where there is none. Rows with one field and `is` are alternatives. */
export function currentFilter() {
  const conditions = [];
  const alternatives = new Map();
  for (const row of rows.filter(isComplete)) {
    if (row.comparison === "is") alternatives.set(row.key, [...(alternatives.get(row.key) ?? []), ...equalities(row)]);
    else conditions.push(conditionOf(row));
  }
  for (const each of alternatives.values()) conditions.push(each.length === 1 ? each[0] : { or: each });
  if (conditions.length === 0) return null;
  return conditions.length === 1 ? conditions[0] : { and: conditions };
}

/** The button, the rows and the chips. `onChange` is called when a condition has come, changed or gone. */
export function watchFilters(onChange) {
  changed = onChange;
  byId("filters").addEventListener("change", changed);
  byId("open-filters").addEventListener("click", () => {
    const isOpen = byId("filters").hidden;
    if (isOpen && rows.length === 0) rows.push(emptyRow());
    show(isOpen);
    drawRows();
    if (isOpen) byId("filters").querySelector("input")?.focus();
  });
}

/** Names of metadata that documents have, offered while one types. */
export function offerNames(found) {
  names = [...new Set([...ALWAYS, ...found])];
}

/** Leaves the rows as they are, out of the way: the chips say what is in use. */
export function foldFilters() {
  show(false);
}

/** Takes all filters out. */
export function clearFilters() {
  rows.length = 0;
  show(false);
  drawChips();
  changed();
}

function emptyRow() {
  return { key: "source", comparison: "prefix", value: "" };
}

function isComplete(row) {
  return isKey(row.key) && row.value.trim() !== "";
}

function isKey(key) {
  return KEY.test(key) && !RESERVED.has(key);
}

function conditionOf({ key, comparison, value }) {
  const given = value.trim();
  if (comparison === "not") {
    const same = equalities({ key, value });
    return { not: same.length === 1 ? same[0] : { or: same } };
  }
  if (comparison === "prefix") return { [key]: { prefix: given } };
  return { [key]: { [comparison]: asNumber(given) ?? given } };
}

/** A value that reads as a number or a truth may be stored as one or as text: both are meant. */
function equalities({ key, value }) {
  const given = value.trim();
  const other = asNumber(given) ?? { true: true, false: false }[given];
  return other === undefined ? [{ [key]: given }] : [{ [key]: other }, { [key]: given }];
}

function asNumber(text) {
  return /^-?\d+(\.\d+)?$/.test(text) && Math.abs(Number(text)) <= Number.MAX_SAFE_INTEGER ? Number(text) : undefined;
}

function show(isOpen) {
  byId("filters").hidden = !isOpen;
  byId("open-filters").setAttribute("aria-expanded", String(isOpen));
}

function drawRows() {
  const options = names.map((name) => element("option", { value: name }));
  const add = element("button", { type: "button", class: "quiet text", on: { click: addRow } }, "Add a condition");
  const clear = element("button", { type: "button", class: "quiet text", on: { click: clearFilters } }, "Clear");
  fill(byId("filters"), element("datalist", { id: "filter-names" }, options), rows.map(drawRow),
    element("div", { class: "filter-actions" }, add, clear));
  drawChips();
}

function addRow() {
  rows.push(emptyRow());
  drawRows();
  [...byId("filters").querySelectorAll(".filter-row")].at(-1).querySelector("input").focus();
}

/** Takes a row out. The focus was on it: it goes to the nearest of `others()` that is left. */
function removeRow(row, others) {
  const at = others().findIndex((each) => each === document.activeElement);
  rows.splice(rows.indexOf(row), 1);
  drawRows();
  changed();
  if (rows.length === 0) show(false);
  const left = others();
  (left[Math.min(Math.max(at, 0), left.length - 1)] ?? byId("open-filters")).focus();
}

function removersOfRows() {
  return [...byId("filters").querySelectorAll(".filter-row button")];
}

function removersOfChips() {
  return [...byId("filter-chips").querySelectorAll("button")];
}

function drawRow(row) {
  const key = element("input", { class: "field", value: row.key, list: "filter-names", "aria-label": "Field", spellcheck: "false" });
  const comparison = element("select", { class: "field", "aria-label": "Comparison" },
    COMPARISONS.map(([name, label]) => element("option", { value: name, selected: name === row.comparison }, label)));
  const value = element("input", { class: "field", value: row.value, "aria-label": "Value", placeholder: "value", spellcheck: "false" });
  const judge = () => key.setAttribute("aria-invalid", String(row.key !== "" && !isKey(row.key)));
  const update = () => {
    Object.assign(row, { key: key.value.trim(), comparison: comparison.value, value: value.value });
    judge();
    drawChips();
  };
  judge();
  for (const field of [key, comparison, value]) field.addEventListener("input", update);
  const remove = iconButton("close", "Remove this condition", () => removeRow(row, removersOfRows));
  return element("div", { class: "filter-row" }, key, comparison, value, remove);
}

function drawChips() {
  const chips = rows.filter(isComplete).map((row) => {
    const words = wordsOf(row);
    const remove = iconButton("close", `Remove the filter: ${words}`, () => removeRow(row, removersOfChips));
    return element("li", {}, element("span", {}, words), remove);
  });
  fill(byId("filter-chips"), chips);
}
