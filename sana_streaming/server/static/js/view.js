// How source and edited picture are shown.

import { $, all, press, pressed } from "./dom.js";

const stage = $("stage");
let choice = "side";

export const slides = () => choice === "slider";

export function view(name) {
  stage.dataset.view = choice = name;
  all("button[data-view]").forEach((button) => press(button, button.dataset.view === name));
}

export const compare = () => view(slides() ? "side" : "slider");

// The shape of the edited picture, and how much higher than it the source's canvas is, stripe included.
export function shape(width, height, all) {
  stage.style.setProperty("--ratio", width / height);
  stage.style.setProperty("--rows", all / height);
}

// One's own camera is seen as in a mirror, unless that was switched off.
export function mirror(own) {
  $("mirror").hidden = !own;
  stage.classList.toggle("mirrored", own && pressed($("mirror")));
}

export async function full() {
  if (document.fullscreenElement) await document.exitFullscreen();
  else await $("edited-pane").requestFullscreen();
}

export async function pip() {
  if (document.pictureInPictureElement) {
    await document.exitPictureInPicture();
    return;
  }
  const video = $("pip-video");
  video.srcObject ??= $("edited").captureStream();
  await video.play();
  await video.requestPictureInPicture();
}

all("button[data-view]").forEach((button) => (button.onclick = () => view(button.dataset.view)));
$("slider").oninput = ({ target }) => stage.style.setProperty("--cut", `${target.value}%`);
$("full").hidden = !document.fullscreenEnabled;
$("pip").hidden = !document.pictureInPictureEnabled;
