// The page: what it knows of the service, the conversation, and who is told what.

import { pageAddress, readAddress } from "./address.js";
import { listDocuments, onUnauthorized, status } from "./api.js";
import { highlighted, watchCard } from "./chips.js";
import { collection, offerCollections, watchCollections } from "./collections.js";
import { byId, element, fill } from "./dom.js";
import { clearFilters, currentConditions, currentFilter, foldFilters, offerNames, takeConditions, watchFilters } from "./filters.js";
import { isComposing, watchKeyboard } from "./keyboard.js";
import { openLibrary, watchLibrary } from "./library.js";
import { watchPanels } from "./panels.js";
import { counted, nameOf } from "./passages.js";
import { say } from "./saying.js";
import { failure, note } from "./states.js";
import { watchTheme } from "./theme.js";
import { Turn } from "./turn.js";
import { openDocument, watchViewer } from "./viewer.js";

let service = null; // What /status says.
let running = null;
const turns = [];
const arrived = readAddress(location); // What the address said that led here.

function openPassage(passage, citation) {
  const range = citation ? [citation.passage_start, citation.passage_end] : [passage.start, passage.end];
  const { place } = nameOf(passage);
  openDocument({
    documentId: passage.document_id,
    source: passage.source,
    place,
    passage: range,
    quote: citation?.quote ? highlighted(passage, citation) : null,
    collection: collection(),
  });
}

function historyOf(earlier) {
  const answered = earlier.filter((turn) => turn.answer && turn.answer.text);
  const messages = answered.flatMap((turn) => [
    { role: "user", text: turn.request.question },
    { role: "assistant", text: turn.answer.text },
  ]);
  const most = service?.limits?.history_turns ?? 20;
  return messages.slice(-(most - (most % 2)));
}

async function ask(question, { where, conditions } = { where: currentFilter(), conditions: currentConditions() }) {
  if (running || !question.trim()) return;
  const request = { question: question.trim(), collection: collection(), history: historyOf(turns), where };
  const turn = new Turn(request, conditions, { open: openPassage, say, again });
  for (const earlier of turns) earlier.stepBack();
  turns.push(turn);
  byId("turns").append(turn.element);
  setConversing(true);
  foldFilters();
  arrived.question = ""; // It is asked, or another one is.
  rememberChoice();
  turn.element.scrollIntoView({ block: "start" });
  setRunning(turn);
  await turn.run();
  setRunning(null);
}

/** Asks a turn's question anew, narrowed as it was, in its place at the end. */
function again(turn) {
  if (running) return;
  turns.splice(turns.indexOf(turn), 1);
  turn.element.remove();
  ask(turn.request.question, { where: turn.request.where, conditions: turn.conditions });
}

function setRunning(turn) {
  running = turn;
  const hadFocus = document.activeElement === byId("send") || document.activeElement === byId("stop");
  byId("send").hidden = turn !== null;
  byId("stop").hidden = turn === null;
  if (hadFocus) byId(turn ? "stop" : "question").focus();
}

function setConversing(isConversing) {
  document.body.classList.toggle("is-conversing", isConversing);
  byId("welcome").hidden = isConversing;
  byId("new").hidden = !isConversing;
}

function startAnew() {
  running?.stop();
  turns.length = 0;
  fill(byId("turns"));
  setConversing(false);
  byId("question").focus();
}

/** Puts text into the field, which grows with it. */
function fillQuestion(text) {
  byId("question").value = text;
  fitQuestion();
}

function fitQuestion() {
  const field = byId("question");
  field.style.blockSize = "auto";
  field.style.blockSize = `${Math.min(field.scrollHeight, 240)}px`;
}

/** One can type at once; where a keyboard would slide over the page, one taps first. */
function focusQuestion() {
  if (matchMedia("(pointer: fine)").matches) byId("question").focus({ preventScroll: true });
}

function watchAsking() {
  const field = byId("question");
  field.addEventListener("input", fitQuestion);
  field.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || isComposing(event)) return;
    event.preventDefault();
    byId("ask").requestSubmit();
  });
  byId("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    if (running || !field.value.trim()) return;
    const question = field.value;
    fillQuestion("");
    ask(question);
  });
  byId("stop").addEventListener("click", () => running?.stop());
  byId("new").addEventListener("click", startAnew);
}

/** Another collection has other documents, which a filter and a conversation know nothing of. */
function changeCollection() {
  clearFilters();
  startAnew();
  byId("banner").hidden = true;
  showFacts();
  learnNames();
}

/** The address holds what is chosen, so that it outlives a reload and can be kept and sent; no question that was typed. */
function rememberChoice() {
  const chosen = collection() ?? arrived.collection;
  history.replaceState(null, "", pageAddress({ question: arrived.question, collection: chosen, conditions: currentConditions() }));
}

/** What the service is and has; the banner says it where the service cannot be asked. */
async function meetService() {
  const banner = byId("banner");
  try {
    service = await status();
    banner.hidden = true;
  } catch (problem) {
    fill(banner, failure(problem, meetService));
    banner.hidden = false;
    return;
  }
  const { collections, limits } = service;
  const wanted = collection() ?? arrived.collection;
  if (!offerCollections(collections, wanted)) {
    warn(`There is no collection “${wanted}” here`, `Questions go to “${collection()}” instead.`);
  }
  if (limits?.question_characters) byId("question").maxLength = limits.question_characters;
  showFacts();
  learnNames();
}

function warn(heading, line) {
  const banner = byId("banner");
  if (banner.hidden) fill(banner);
  banner.append(note("warning", heading, [line]));
  banner.hidden = false;
}

function showFacts() {
  const chosen = service.collections.find(({ name }) => name === collection()) ?? service.collections[0];
  const facts = byId("facts");
  if (!chosen?.chunks) {
    const add = element("button", { type: "button", class: "quiet text", on: { click: openLibrary } }, "Add documents");
    fill(facts, "Nothing is indexed yet. ", add);
    return;
  }
  const { generator } = service.models;
  const writer = generator === "extractive" ? "answers are quotations" : generator;
  fill(facts, [counted(chosen.documents, "document"), counted(chosen.chunks, "passage"), writer].filter(Boolean).join(" · "));
}

/** Names of metadata, for the filters. Only a help: without it, one types the name. */
async function learnNames() {
  try {
    const { documents } = await listDocuments({ collection: collection(), limit: 100 });
    offerNames(documents.flatMap((document) => Object.keys(document.metadata)));
  } catch {
    offerNames([]);
  }
}

/** Opens the document of the address, or puts its question and its conditions where they belong, without asking. */
function followAddress() {
  const { question, conditions } = arrived;
  openAddressed();
  if (question) fillQuestion(question);
  for (const { key, comparison, value } of takeConditions(conditions)) {
    const text = [key, comparison, value].filter(Boolean).join(" ");
    warn("A condition of the link cannot be read", `“${text}” does not narrow what is searched.`);
  }
}

/** The document is asked for in the collection that its address names, also where there is none of that name. */
function openAddressed() {
  const { documentId, range, collection: named } = readAddress(location);
  if (documentId) openDocument({ documentId, passage: range, collection: named ?? collection() });
}

function askForKey(wasWrong) {
  const dialog = byId("access");
  byId("access-reason").textContent = wasWrong ? "The key was not accepted." : "It is kept in this tab until you close it.";
  byId("access-key").value = "";
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "given" ? byId("access-key").value : null), { once: true });
  });
}

watchTheme(say);
watchPanels();
watchCard();
watchViewer((words) => say(words, true));
watchFilters(rememberChoice);
watchCollections(changeCollection);
watchAsking();
watchLibrary({
  collection,
  status: () => service,
  open: (document) => openDocument({ documentId: document.id, source: document.source, collection: collection() }),
  say,
  changed: meetService,
});
watchKeyboard({
  stop: () => running?.stop(),
  openSource: (number) => turns.at(-1)?.writing?.numbered.has(number) && openPassage(turns.at(-1).writing.numbered.get(number), null),
});
onUnauthorized(askForKey);
focusQuestion();
addEventListener("online", meetService);
addEventListener("hashchange", openAddressed);
await meetService();
followAddress();
