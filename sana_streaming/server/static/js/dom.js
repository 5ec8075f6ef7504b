// Short names for what every part of the page does with its elements.

export const $ = (id) => document.getElementById(id);
export const all = (selector) => [...document.querySelectorAll(selector)];
export const press = (button, on) => button.setAttribute("aria-pressed", on);
export const pressed = (button) => button.getAttribute("aria-pressed") === "true";
export const set = (id, text) => {
  if ($(id).textContent !== text) $(id).textContent = text; // a live region is read out again whenever it is written
};
