// A button for each edit that the model was taught. The first nine have a key.

import { $, all, press } from "./dom.js";

const KEYS = 9;

export function fill(edits, onpick) {
  const nodes = [];
  let number = 0;
  for (const [kind, ofKind] of grouped(edits)) {
    const [first, ...rest] = ofKind.sort((a, b) => b.strong - a.strong).map((edit) => chip(edit, ++number, onpick));
    const begin = document.createElement("span"); // a heading stays with what follows it
    const title = document.createElement("h2");
    title.textContent = kind;
    begin.append(title, first);
    nodes.push(begin, ...rest);
  }
  $("chips").replaceChildren(...nodes);
}

function chip(edit, number, onpick) {
  const button = document.createElement("button");
  button.type = "button";
  button.title = edit.example;
  button.textContent = edit.name.replaceAll("_", " ");
  if (number <= KEYS) {
    const key = document.createElement("kbd");
    key.textContent = number;
    key.setAttribute("aria-hidden", "true");
    button.append(" ", key);
    button.setAttribute("aria-keyshortcuts", number);
  }
  button.onclick = () => onpick(edit.example);
  return button;
}

function grouped(edits) {
  const kinds = new Map();
  for (const edit of edits) kinds.set(edit.kind, [...(kinds.get(edit.kind) ?? []), edit]);
  return kinds;
}

export const mark = (prompt) => all("#chips button").forEach((button) => press(button, button.title === prompt));

export const pick = (number) => all("#chips button")[number - 1]?.click();
