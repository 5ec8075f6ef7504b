// The bar that is always in view, and the line for messages.

import { $, set } from "./dom.js";

const number = (value, digits = 0, unit = "") => (value == null ? "–" : `${value.toFixed(digits)}${unit}`);

export function stats(told) {
  set("fps-in", number(told.fps_in, 1));
  set("fps-out", number(told.fps_out, 1));
  set("factor", number(told.real_time_factor, told.real_time_factor < 10 ? 2 : 0, "×"));
  set("chunk-p95", number(told.chunk_p95_ms, 0, " ms"));
  set("dropped", String(told.dropped));
  set("repeated", String(told.repeated));
  set("quality", told.level ? `lowered ${told.level}` : "full");
  set("memory", told.memory_mb >= 10_000 ? number(told.memory_mb / 1024, 1, " GB") : number(told.memory_mb, 0, " MB"));
}

export const glass = (ms) => set("glass", number(ms, 0, " ms"));
export const connection = (text) => set("connection", text);

let timer = null;
export function message(text, kind = "note", seconds = 12) {
  clearTimeout(timer);
  $("message").dataset.kind = kind;
  $("message").title = text;
  set("message", text);
  timer = text && seconds ? setTimeout(() => message(""), 1000 * seconds) : null;
}
