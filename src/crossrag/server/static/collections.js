// Which of the service's collections is asked: the picker, which is there where there is a choice.

import { byId, element, fill } from "./dom.js";

/** The name of the collection that is asked; null before the service has said which there are. */
export function collection() {
  return byId("collection").value || null;
}

/** Offers the collections of the service and picks `wanted`; false where there is none of that name, and the first is picked. */
export function offerCollections(collections, wanted) {
  fill(byId("collection"), collections.map(({ name }) => element("option", { value: name, selected: name === wanted }, name)));
  byId("collection-label").hidden = collections.length < 2;
  return !wanted || collections.some(({ name }) => name === wanted);
}

/** Calls `changed()` when another collection was picked. */
export function watchCollections(changed) {
  byId("collection").addEventListener("change", changed);
}
