// The documents of a collection: found by name, added by upload with the progress of each file, taken out again.

import { listDocuments, removeDocument, upload } from "./api.js";
import { byId, element, fill, icon, iconButton } from "./dom.js";
import { openPanel } from "./panels.js";
import { counted, percent } from "./passages.js";
import { failure } from "./states.js";

const OUTCOMES = { added: "added", updated: "replaced", unchanged: "unchanged", skipped: "left out", failed: "not added" };
const TYPING_PAUSE = 200;
const WELL_KNOWN = [".pdf", ".docx", ".pptx", ".xlsx", ".md", ".html", ".txt", ".csv"];

let page = null;
let cursor = null;
let latest = 0;

/**
 * The panel. `context` has `collection()`, `status()`, `open(document)`, `say(text)`, and `changed()`, called when
 * documents came or went.
 */
export function watchLibrary(context) {
  page = context;
  byId("open-library").addEventListener("click", openLibrary);
  byId("more-documents").addEventListener("click", () => list(true));
  byId("files").addEventListener("change", (event) => {
    addFiles([...event.target.files]);
    event.target.value = "";
  });
  let timer = 0;
  byId("contains").addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(() => list(false), TYPING_PAUSE);
  });
  watchDrop(byId("drop"));
}

/** Opens the panel with a fresh list. */
export function openLibrary() {
  const { scope, file_types: types = [], limits } = page.status() ?? {};
  byId("drop").hidden = scope === "read";
  byId("files").setAttribute("accept", types.join());
  byId("drop-types").textContent = limits ? `${kinds(types)}; up to ${megabytes(limits.upload_bytes)} each` : "";
  openPanel(byId("library"));
  fill(byId("documents")); // An old list would be replaced under somebody's pointer.
  list(false);
}

async function list(isMore) {
  const request = (latest += 1);
  try {
    const found = await listDocuments({ collection: page.collection(), contains: byId("contains").value.trim(), cursor: isMore ? cursor : null });
    if (request !== latest) return;
    cursor = found.next_cursor;
    const items = found.documents.map(documentItem);
    if (isMore) byId("documents").append(...items);
    else fill(byId("documents"), items.length > 0 ? items : element("li", { class: "muted" }, "No document here."));
    byId("library-count").textContent = counted(found.total, "document");
    byId("more-documents").hidden = !cursor;
  } catch (problem) {
    if (request === latest) fill(byId("documents"), element("li", {}, failure(problem, () => list(isMore))));
  }
}

function documentItem(document) {
  const details = [counted(document.chunks, "passage"), ...Object.entries(document.metadata).slice(0, 3).map(([name, value]) => `${name}: ${value}`)];
  const name = element("button", { type: "button", class: "place", on: { click: () => page.open(document) } }, document.source);
  const item = element("li", {},
    icon("library"),
    element("div", { class: "document-name" }, name, element("span", { class: "muted small-text" }, details.join(" · "))),
    document.uploaded && page.status()?.scope !== "read" && iconButton("trash", `Remove ${document.source}`, () => remove(document, item)),
  );
  return item;
}

/** The first click asks, the second one removes: no document goes by one slip. */
function remove(document, item) {
  const trash = item.lastElementChild;
  const keep = () => {
    question.replaceWith(trash);
    trash.focus();
  };
  const cancel = element("button", { type: "button", class: "quiet text", on: { click: keep } }, "Keep");
  const confirm = element("button", { type: "button", class: "secondary is-danger", on: { click: () => reallyRemove(document, item) } }, "Remove");
  const question = element("span", { class: "confirm" }, confirm, cancel);
  trash.replaceWith(question);
  confirm.focus();
}

async function reallyRemove(document, item) {
  try {
    await removeDocument(document.id, { collection: page.collection() });
    page.say(`${document.source} is removed.`);
    page.changed();
    await list(false);
    if (byId("library").open) byId("library-title").focus(); // The focus was on what is gone.
  } catch (problem) {
    item.append(element("p", { class: "complaint" }, [problem.message, problem.hint].filter(Boolean).join(" ")));
  }
}

/** One after the other, so that each has a progress of its own and one that fails keeps none back. */
async function addFiles(files) {
  const collection = page.collection(); // Another may be chosen while they wait.
  const queue = files.map((file) => ({ file, row: uploadRow(file) }));
  byId("uploads").prepend(...queue.map(({ row }) => row.item));
  for (const { file, row } of queue) {
    try {
      const result = await upload(file, { collection, onProgress: row.progress });
      row.done(result.status, result.reason ?? counted(result.chunks, "passage"));
    } catch (problem) {
      row.done("failed", [problem.message, problem.hint].filter(Boolean).join(" "));
    }
  }
  page.changed();
  list(false);
}

function uploadRow(file) {
  const bar = element("progress", { max: 1, value: 0, "aria-label": `Upload of ${file.name}` });
  const said = element("span", { class: "muted small-text" }, "waiting");
  const item = element("li", {}, element("span", { class: "upload-name" }, file.name), bar, said);
  return {
    item,
    progress: (part) => {
      bar.value = part;
      said.textContent = part < 1 ? percent(part) : "being read and indexed";
      if (part >= 1) bar.removeAttribute("value");
    },
    done: (status, detail) => {
      bar.remove();
      item.classList.add(`is-${status}`);
      said.textContent = `${OUTCOMES[status] ?? status}: ${detail}`;
      page.say(`${file.name}: ${said.textContent}`);
    },
  };
}

function watchDrop(zone) {
  const mark = (isOver) => (event) => {
    event.preventDefault();
    zone.classList.toggle("is-over", isOver);
  };
  for (const name of ["dragenter", "dragover"]) zone.addEventListener(name, mark(true));
  for (const name of ["dragleave", "drop"]) zone.addEventListener(name, mark(false));
  zone.addEventListener("drop", (event) => addFiles([...event.dataTransfer.files]));
  // A file dropped beside the zone must not replace the page.
  for (const name of ["dragover", "drop"]) addEventListener(name, (event) => event.preventDefault());
}

/** The kinds that people look for, and how many there are beside them. */
function kinds(types) {
  const named = WELL_KNOWN.filter((type) => types.includes(type)).map((type) => type.slice(1));
  const others = types.length - named.length;
  return others > 0 ? `${named.join(", ")} and ${counted(others, "more kind")}` : named.join(", ");
}

function megabytes(bytes) {
  return `${Math.round(bytes / 1e6).toLocaleString("en")} MB`;
}
