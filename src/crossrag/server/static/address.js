// What the page's addresses say: a question, a collection and conditions; or a document, its collection and a range.

const DEFAULT = "default"; // The collection that is meant where an address names none, as in the API.

/**
 * The address that puts a question into the field, with the collection and the conditions it is asked with:
 * `/?q=QUESTION&collection=NAME&filter=FIELD:COMPARISON:VALUE`, the last once for each condition.
 */
export function pageAddress({ question = "", collection = null, conditions = [] }) {
  const parameters = new URLSearchParams();
  if (question) parameters.append("q", question);
  if (isNamed(collection)) parameters.append("collection", collection);
  for (const { key, comparison, value } of conditions) parameters.append("filter", [key, comparison, value.trim()].join(":"));
  return parameters.size > 0 ? `/?${parameters}` : "/";
}

/** The address that opens a passage's document at a range of its text, in code points; it works in a new tab too. */
export function addressOf(passage, range = [passage.start, passage.end]) {
  const { document_id: id, collection } = passage;
  const query = isNamed(collection) ? `?${new URLSearchParams({ collection })}` : "";
  return `/d/${encodeURIComponent(id)}${query}${range ? `#${range[0]}-${range[1]}` : ""}`;
}

/** What an address says: both of the above, read; what it does not say is empty or null. */
export function readAddress({ pathname, search, hash }) {
  const parameters = new URLSearchParams(search);
  const path = /^\/d\/([^/]+)$/.exec(pathname);
  const range = /^#(\d+)-(\d+)$/.exec(hash);
  return {
    question: parameters.get("q") ?? "",
    collection: parameters.get("collection"),
    conditions: parameters.getAll("filter").map(conditionOf),
    documentId: path ? decoded(path[1]) : null,
    range: range ? [Number(range[1]), Number(range[2])] : null,
  };
}

/** A value may hold colons, a field and a comparison have none. */
function conditionOf(text) {
  const [key, comparison = "", ...rest] = text.split(":");
  return { key, comparison, value: rest.join(":") };
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part; // The service says that there is no such document.
  }
}

function isNamed(collection) {
  return Boolean(collection) && collection !== DEFAULT;
}
