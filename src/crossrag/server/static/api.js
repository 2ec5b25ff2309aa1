// The service's native API as functions. Every failure is a Problem: what the service said, or why it could not be asked.

import { eventsOf } from "./events.js";

const ROOT = "/api/v1";
const KEY = "crossrag-key";

/** Why a request failed. `code` is the service's, or `unreachable`, `interrupted` or `unreadable`. */
export class Problem extends Error {
  constructor({ title, detail = "", hint = "", code = "unreadable", status = 0, retryAfter = null }) {
    super(detail || title);
    Object.assign(this, { title, detail, hint, code, status, retryAfter });
  }
}

let askForKey = async () => null;
let asking = null;

/** How to get a key when the service wants one: a function to a key, or to null where nobody gives one. */
export function onUnauthorized(ask) {
  askForKey = ask;
}

export function status() {
  return getJson("/status");
}

export function listDocuments({ collection, contains, cursor, limit = 50 }) {
  return getJson("/documents", { collection, contains, cursor, limit });
}

/** Text of a document from `start` (code points), at most as much as the service gives at once. */
export function documentText(id, { collection, start = 0, end = null }) {
  return getJson(`/documents/${encodeURIComponent(id)}/text`, { collection, start, end });
}

export async function removeDocument(id, { collection }) {
  await send("DELETE", `/documents/${encodeURIComponent(id)}${query({ collection })}`);
}

export async function giveFeedback(verdict) {
  await send("POST", "/feedback", { body: JSON.stringify(verdict), json: true });
}

export async function search(request) {
  return readJson(await send("POST", "/search", { body: JSON.stringify(request), json: true }));
}

/** Events of an answer, the last of which is `done` or `error`. Ends with a Problem where neither came. */
export async function* streamAnswer(request, signal) {
  const body = JSON.stringify({ ...request, stream: true });
  const response = await send("POST", "/answer", { body, json: true, signal });
  let isOver = false;
  try {
    for await (const event of eventsOf(response)) {
      isOver ||= event.name === "done" || event.name === "error";
      yield event;
    }
  } catch (error) {
    if (error.name === "AbortError") throw error;
  }
  if (!isOver) {
    throw new Problem({ title: "The answer broke off", detail: "The connection ended before the answer did.", code: "interrupted" });
  }
}

/** Sends one file; `onProgress` gets the part that is sent, in [0, 1]. The result is the service's for this file. */
export function upload(file, { collection, onProgress }) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    const form = new FormData();
    form.append("files", file, file.name);
    request.open("POST", `${ROOT}/documents${query({ collection })}`);
    if (key()) request.setRequestHeader("Authorization", `Bearer ${key()}`);
    request.upload.onprogress = (event) => event.lengthComputable && onProgress(event.loaded / event.total);
    request.onerror = () => reject(unreachable());
    request.onload = () => {
      const reply = parsed(request.responseText);
      if (request.status < 300 && reply?.files?.length) resolve(reply.files[0]);
      else reject(problemOf(request.status, reply, request.getResponseHeader("Retry-After")));
    };
    request.send(form);
  });
}

async function getJson(path, parameters = {}) {
  return readJson(await send("GET", path + query(parameters)));
}

async function send(method, path, { body, json, signal } = {}) {
  const response = await fetched(method, path, { body, json, signal });
  if (response.status !== 401) return checked(response);
  asking ??= askForKey(Boolean(key())).finally(() => (asking = null)); // Requests of one moment ask once.
  const given = await asking;
  if (!given) return checked(response);
  sessionStorage.setItem(KEY, given);
  return send(method, path, { body, json, signal });
}

async function fetched(method, path, { body, json, signal }) {
  const headers = {};
  if (json) headers["Content-Type"] = "application/json";
  if (key()) headers.Authorization = `Bearer ${key()}`;
  try {
    return await fetch(ROOT + path, { method, headers, body, signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw unreachable();
  }
}

async function checked(response) {
  if (response.ok) return response;
  throw problemOf(response.status, parsed(await response.text()), response.headers.get("Retry-After"));
}

async function readJson(response) {
  const value = parsed(await response.text());
  if (value === null) throw new Problem({ title: "The service's reply cannot be read", status: response.status });
  return value;
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

function problemOf(statusCode, body, retryAfter) {
  const seconds = retryAfter && Number.isFinite(Number(retryAfter)) ? Number(retryAfter) : null;
  return new Problem({ title: `The service replied ${statusCode}`, ...body, status: statusCode, retryAfter: seconds });
}

function unreachable() {
  return new Problem({
    title: "The service cannot be reached",
    hint: "Is it still running? Nothing you asked is lost: try again when it is back.",
    code: "unreachable",
  });
}

function query(parameters) {
  const given = Object.entries(parameters).filter(([, value]) => value !== null && value !== undefined && value !== "");
  return given.length > 0 ? `?${new URLSearchParams(given)}` : "";
}

function key() {
  return sessionStorage.getItem(KEY);
}
