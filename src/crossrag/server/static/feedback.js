// Thumbs up and down for an answer or a passage, sent to the service as judgements; what failed is said and taken back.

import { giveFeedback } from "./api.js";
import { element, icon } from "./dom.js";

/**
 * Two buttons. `verdictOn()` gives what is judged: question, kind, passages, collection, answer_id. `say` tells a screen
 * reader. With `asksWhy`, a thumb down opens a line for the reason, which is sent as well.
 */
export function thumbs({ what, verdictOn, say, asksWhy = false }) {
  const up = thumb("up", `${what}: useful`);
  const down = thumb("down", `${what}: not useful`);
  const whole = element("span", { class: "thumbs" }, up, down);
  const give = async (verdict, reason) => {
    mark(up, down, verdict);
    try {
      await giveFeedback({ ...verdictOn(), verdict, ...(reason && { reason }) });
      say("Thank you, noted.");
    } catch (problem) {
      mark(up, down, null);
      say(`Not noted: ${problem.message}`);
      whole.append(complaint(problem));
    }
  };
  up.addEventListener("click", () => {
    whole.querySelector(".why")?.remove();
    give("up");
  });
  down.addEventListener("click", () => {
    whole.querySelectorAll(".why, .complaint").forEach((node) => node.remove());
    if (asksWhy) whole.append(why((reason) => give("down", reason)));
    give("down");
  });
  return whole;
}

function thumb(direction, label) {
  const properties = { type: "button", class: "quiet thumb", title: label, "aria-label": label, "aria-pressed": "false" };
  return element("button", properties, icon(direction));
}

function mark(up, down, verdict) {
  up.setAttribute("aria-pressed", String(verdict === "up"));
  down.setAttribute("aria-pressed", String(verdict === "down"));
}

function complaint(problem) {
  return element("span", { class: "complaint" }, `Not noted: ${problem.message}`);
}

function why(send) {
  const field = element("input", { class: "field", maxlength: 2000, placeholder: "What was wrong? (optional)", "aria-label": "What was wrong?" });
  const form = element("form", {
    class: "why",
    on: {
      submit: (event) => {
        event.preventDefault();
        if (field.value.trim()) send(field.value.trim());
        form.remove();
      },
    },
  }, field, element("button", { class: "quiet text" }, "Send"));
  queueMicrotask(() => field.focus());
  return form;
}
