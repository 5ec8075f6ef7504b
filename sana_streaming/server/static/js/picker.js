// Which camera, screen or clip is edited.

import { awake } from "./awake.js";
import { $, all, press } from "./dom.js";
import * as status from "./status.js";
import * as views from "./view.js";

export class Picker {
  // onchosen: another picture is there.
  constructor(source, sound, onchosen) {
    Object.assign(this, { source, sound, onchosen });
    source.onended = (kind) => {
      status.message(`the ${kind} ended; choose another source`, "warning");
      sound.stop();
      this.show(null);
    };
    all("button[data-source]").forEach((button) => (button.onclick = () => this.choose(button.dataset.source)));
    $("cameras").onchange = ({ target }) => this.choose("camera", target.value);
    $("file").onchange = ({ target }) => {
      const [file] = target.files;
      if (file) this.choose("clip", file);
      target.value = ""; // so that the same file can be chosen again
    };
  }

  // choice: a camera's id, or a file.
  async choose(kind, choice) {
    if (kind === "clip" && !choice) {
      $("file").click();
      return;
    }
    const { source, sound } = this;
    const before = source.kind;
    try {
      await source[kind](choice);
    } catch (error) {
      status.message(refusal(error, kind), "error");
      if (!source.ready) this.show(null);
      return;
    }
    if (kind === "clip") sound.clip(source.video).catch(({ message }) => status.message(message, "warning"));
    else if (before === "clip") sound.stop();
    this.show(kind);
    this.onchosen();
  }

  show(kind) {
    $("welcome").hidden = kind !== null;
    all("[data-source]").forEach((button) => press(button, button.dataset.source === kind));
    $("microphone").hidden = kind === null || kind === "clip";
    awake(kind !== null);
    this.mirror();
    this.cameras(kind);
  }

  mirror() {
    views.mirror(this.source.kind === "camera" && this.source.facing !== "environment");
  }

  async cameras(kind) {
    const { all: found, used } = kind === "camera" ? await this.source.cameras() : { all: [] };
    const options = found.map(({ label, deviceId }, i) => new Option(label || `Camera ${i + 1}`, deviceId));
    $("cameras").replaceChildren(...options);
    $("cameras").value = used;
    $("cameras").hidden = found.length < 2;
  }
}

export function refusal(error, what) {
  if (error.name === "NotAllowedError") return `the browser was not allowed to use the ${what}`;
  if (error.name === "NotFoundError") return `there is no ${what}`;
  return error.message;
}
