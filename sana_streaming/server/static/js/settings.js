// Seed and steps: what was chosen, and what the server says is in force.

import { $, set } from "./dom.js";

export const chosen = { seed: 0, steps: null }; // null: the model's own number

export function receipt(text, kind = "") {
  set("settings-receipt", text);
  $("settings-receipt").className = kind;
}

export function tell({ seed, steps, width, height }) {
  set("in-force", `seed ${seed}, ${steps} ${steps === 1 ? "step" : "steps"}, edited at ${width}×${height}`);
}

export function listen({ onseed, onsteps }) {
  $("seed-form").onsubmit = (event) => {
    event.preventDefault();
    chosen.seed = $("seed").valueAsNumber;
    onseed();
  };
  $("steps-form").onsubmit = (event) => {
    event.preventDefault();
    chosen.steps = $("steps").value ? $("steps").valueAsNumber : null;
    onsteps();
  };
}
