// The line for the instruction, and what became of it.

import { $, set } from "./dom.js";

export const text = () => $("prompt").value.trim();
export const focus = () => $("prompt").focus();

export function fill(prompt) {
  $("prompt").value = prompt;
  remaining();
}

export function limit(characters) {
  $("prompt").maxLength = characters;
  remaining();
}

export function receipt(text, kind = "") {
  set("receipt", text);
  $("receipt").className = kind;
}

function remaining() {
  set("remaining", `${$("prompt").maxLength - $("prompt").value.length} characters left`);
}

export function listen(onprompt) {
  $("prompt").oninput = remaining;
  $("prompt-form").onsubmit = (event) => {
    event.preventDefault();
    if (text()) onprompt(text());
  };
  remaining();
}
