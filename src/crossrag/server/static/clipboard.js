// An answer as Markdown with its sources below, and text into the clipboard.

/** The answer with numbered sources and links that open the cited passages. */
export function asMarkdown(answer, addressOfSource) {
  const cited = new Set(answer.citations.map((citation) => citation.number));
  const sources = answer.sources.filter((source) => cited.has(source.number));
  const lines = sources.map((source) => `[${source.number}] ${escaped(source.location)}: <${addressOfSource(source)}>`);
  return [`**${escaped(answer.question)}**`, answer.text.trim(), lines.join("\n")].filter(Boolean).join("\n\n") + "\n";
}

/** Puts text into the clipboard and says so with `words`, or that it could not be done. */
export async function copy(text, words, say) {
  try {
    await copyText(text);
    say(words, true);
  } catch {
    say("The browser does not let this page copy.", true);
  }
}

/** Over plain HTTP from another machine, by the old way. */
async function copyText(text) {
  if (navigator.clipboard && isSecureContext) {
    await navigator.clipboard.writeText(text);
    return;
  }
  const field = document.createElement("textarea");
  field.value = text;
  field.className = "hidden";
  const holder = document.querySelector("dialog[open]") ?? document.body;
  holder.append(field);
  field.select();
  const isCopied = document.execCommand("copy");
  field.remove();
  if (!isCopied) throw new Error("The browser does not let this page copy.");
}

function escaped(text) {
  return text.replace(/[\\`*_[\]<>]/g, "\\$&");
}
