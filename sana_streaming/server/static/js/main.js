// The page: what is clicked, typed and told, and how the parts meet.

import { Control } from "./control.js";
import { Jpeg } from "./jpeg.js";
import { listen } from "./keys.js";
import { Output } from "./output.js";
import { Past } from "./past.js";
import { Source } from "./source.js";
import * as status from "./status.js";
import { WebRtc } from "./webrtc.js";

const $ = (id) => document.getElementById(id);
const all = (selector) => [...document.querySelectorAll(selector)];
const query = new URLSearchParams(location.search);
const token = new URLSearchParams(location.hash.slice(1)).get("token");
const authorized = { headers: token ? { Authorization: `Bearer ${token}` } : {} };

const stage = $("stage");
const source = new Source($("source"));
const output = new Output($("edited"), source.times);
const past = new Past($("before"));
const control = new Control(token);
let transport = null;
let state = null; // as the server told it last
let noWay = query.get("transport") === "ws"; // WebRTC does not get through
const asked = new Map(); // number of a prompt that was sent -> its text
const wished = { bypass: false, panic: false }; // for a session that replaces a lost one

// Source

async function choose(kind, file = null) {
  if (kind === "clip" && !file) {
    $("file").click();
    return;
  }
  try {
    await source[kind](file);
  } catch (error) {
    status.message(refusal(error), "error");
    return;
  }
  $("welcome").hidden = true;
  all("[data-source]").forEach((button) => button.setAttribute("aria-pressed", button.dataset.source === kind));
  mirror();
  if (control.isOpen) run();
  else if (!control.wanted || !control.busy) begin();
}

function refusal(error) {
  if (error.name === "NotAllowedError") return "the browser was not allowed to use that picture";
  if (error.name === "NotFoundError") return "there is no camera";
  return error.message;
}

function mirror() {
  const own = source.kind === "camera" && source.facing !== "environment";
  $("mirror").hidden = !own;
  stage.classList.toggle("mirrored", own && $("mirror").getAttribute("aria-pressed") === "true");
}

source.onended = (kind) => {
  status.message(`the ${kind} ended; choose another source`, "warning");
  all("[data-source]").forEach((button) => button.setAttribute("aria-pressed", "false"));
  $("welcome").hidden = false;
};
source.onframe = (canvas, stamp) => {
  if (stage.dataset.view === "slider") past.keep(canvas, stamp);
  transport?.send(canvas, stamp);
};
output.onstamp = (stamp) => stage.dataset.view === "slider" && past.show(stamp);

// Session

let opened = null;
let carries = 0;

function begin() {
  const prompt = $("prompt").value.trim();
  if (!prompt) {
    status.message("type an instruction first", "error");
    $("prompt").focus();
    return;
  }
  $("veil").hidden = false;
  $("veil").textContent = "Warming up…";
  output.shown = 0;
  control.open({ prompt, ...source.shape, stamped: true });
}

function run() {
  source.run(opened.width, opened.height, control.wanted.height, opened.fps);
}

async function carry() {
  const turn = ++carries;
  transport?.close();
  transport = null;
  let ice = [];
  if (!noWay) {
    try {
      ice = (await (await fetch("api/ice", authorized)).json()).iceServers ?? [];
    } catch {
      // peers find each other without help, or fall back
    }
  }
  if (!control.isOpen || turn !== carries) return;
  transport = noWay ? new Jpeg(control, output) : new WebRtc(control, output, source.canvas, ice, failed);
  connected();
}

function failed() {
  if (!transport.connected) {
    noWay = true;
    status.message("WebRTC found no way; pictures travel over the WebSocket", "warning");
  }
  carry();
}

function connected() {
  const waits = transport?.name === "WebRTC" && !transport.connected;
  status.connection(`${transport?.name ?? ""}${waits ? " connecting" : ""}, ${state?.state ?? "opening"}`);
}

function ended(text) {
  opened = state = null;
  transport?.close();
  transport = null;
  asked.clear();
  source.ticker.postMessage(0);
  status.connection("not connected");
  $("veil").hidden = false;
  $("veil").textContent = `${text}. Press Apply to begin again.`;
  enable();
}

const heard = {
  connecting: () => status.connection(control.tries ? "reconnecting" : "connecting"),
  opened(message) {
    opened = message;
    stage.style.setProperty("--ratio", message.width / message.height);
    run();
    stage.style.setProperty("--rows", source.canvas.height / message.height);
    output.resize(message.width, message.height);
    past.resize(message.width, message.height);
    $("model").textContent = message.model;
    $("prompt").maxLength = message.prompt_limit;
    remaining();
    chips(message.edits);
    enable();
    if (message.resumed) {
      status.message("connected again");
    } else {
      receipt("in force from the beginning", "applied");
      for (const command of ["bypass", "panic"]) if (wished[command]) control.send(command, { on: true });
    }
    carry();
  },
  state(message) {
    const first = state === null;
    state = message;
    if (first && message.prompt !== control.wanted.prompt) instruct(control.wanted.prompt); // typed while offline
    all("#chips button").forEach((chip) => chip.setAttribute("aria-pressed", chip.title === message.prompt));
    press("pause", message.state === "paused");
    for (const name of ["bypass", "panic"]) press(name, message[name]);
    press("record", message.recording);
    connected();
  },
  accepted({ n }) {
    if (asked.has(n)) receipt("accepted, waits for its chunk");
  },
  applied({ n, command, chunk, frame }) {
    if (asked.delete(n)) receipt(`in force from chunk ${chunk}, frame ${frame}`, "applied");
    else if (command === "anchor") status.message(`anchored at chunk ${chunk}`);
  },
  stats(message) {
    status.stats(message);
    connected();
  },
  warning: ({ message }) => status.message(message, "warning"),
  error({ message, n }) {
    status.message(message, "error");
    if (asked.delete(n)) {
      receipt("refused", "refused");
      if (state) control.wanted.prompt = state.prompt;
    }
    if (!control.wanted || !control.busy) ended(message);
  },
  queued: ({ position }) => {
    status.connection(`waiting, place ${position}`);
    $("veil").textContent = `The server is full: place ${position} in the queue.`;
  },
  answer: (message) => transport?.answer?.(message),
  candidate: (message) => transport?.candidate?.(message),
  picture: (data) => transport?.picture?.(data),
  recorded: ({ files }) => recordings(files),
  closed: ({ reason }) => ended(`The session ended: ${reason || "closed"}`),
  lost({ was }) {
    state = null;
    transport?.close();
    transport = null;
    asked.clear();
    status.connection("reconnecting");
    if (was) status.message("the connection was lost; trying again", "warning", 0);
    enable();
  },
};
for (const [type, hear] of Object.entries(heard)) control.addEventListener(type, ({ detail }) => hear(detail));
output.onfirst = () => {
  $("veil").hidden = true;
  $("full").disabled = $("pip").disabled = false;
};
addEventListener("pagehide", () => control.send("close")); // makes room for others at once
setInterval(() => status.glass(output.delay), 500);

// Instruction

function instruct(prompt) {
  if (!control.wanted || !control.busy) {
    if (source.ready) begin();
    else status.message("choose a source first");
    return;
  }
  control.wanted.prompt = prompt;
  const n = control.send("set_prompt", { prompt });
  if (n === null) receipt("will be sent when connected");
  else asked.set(n, prompt), receipt("sent");
}

function receipt(text, kind = "") {
  $("receipt").textContent = text;
  $("receipt").className = kind;
}

function remaining() {
  const left = $("prompt").maxLength - $("prompt").value.length;
  $("remaining").textContent = `${left} characters left`;
}

function chips(edits) {
  const kinds = Map.groupBy?.(edits, ({ kind }) => kind) ?? grouped(edits);
  const nodes = [];
  let number = 0;
  for (const [kind, ofKind] of kinds) {
    const title = document.createElement("h2");
    title.textContent = kind;
    nodes.push(title);
    for (const edit of [...ofKind].sort((a, b) => b.strong - a.strong)) {
      const chip = document.createElement("button");
      chip.type = "button";
      chip.title = edit.example;
      chip.textContent = edit.name.replaceAll("_", " ");
      chip.setAttribute("aria-pressed", edit.example === control.wanted.prompt);
      if (++number <= 9) {
        const key = document.createElement("kbd");
        key.textContent = number;
        chip.append(" ", key);
        chip.setAttribute("aria-keyshortcuts", number);
      }
      chip.onclick = () => {
        $("prompt").value = edit.example;
        remaining();
        instruct(edit.example);
      };
      nodes.push(chip);
    }
  }
  $("chips").replaceChildren(...nodes);
}

function grouped(edits) {
  const kinds = new Map();
  for (const edit of edits) kinds.set(edit.kind, [...(kinds.get(edit.kind) ?? []), edit]);
  return kinds;
}

// Show

const LABELS = { pause: ["Pause", "Go on"], record: ["Record", "Stop recording"] };

function press(name, on) {
  $(name).setAttribute("aria-pressed", on);
  if (LABELS[name]) $(name).firstChild.data = `${LABELS[name][+on]} `;
}

function enable() {
  for (const name of ["pause", "bypass", "panic", "anchor", "record"]) $(name).disabled = !control.isOpen;
}

function toggle(name) {
  if (!state) return;
  if (name in wished) wished[name] = !state[name];
  control.send(name, { on: !(name === "record" ? state.recording : state[name]) });
}

const show = {
  pause: () => state && control.send(state.state === "paused" ? "resume" : "pause"),
  bypass: () => toggle("bypass"),
  panic: () => toggle("panic"),
  record: () => toggle("record"),
  anchor: () => control.send("anchor") !== null && status.message("the next chunk becomes the anchor"),
  mirror() {
    press("mirror", $("mirror").getAttribute("aria-pressed") !== "true");
    mirror();
  },
  async full() {
    if (document.fullscreenElement) await document.exitFullscreen();
    else await $("edited-pane").requestFullscreen();
  },
  async pip() {
    if (document.pictureInPictureElement) {
      await document.exitPictureInPicture();
      return;
    }
    const video = $("pip-video");
    video.srcObject ??= output.canvas.captureStream();
    await video.play();
    await video.requestPictureInPicture();
  },
};

function view(name) {
  stage.dataset.view = name;
  if (name !== "slider") past.forget();
  all("button[data-view]").forEach((button) => button.setAttribute("aria-pressed", button.dataset.view === name));
}

function recordings(files) {
  const links = files.map((file) => {
    const link = document.createElement("button");
    link.type = "button";
    link.textContent = file.split("/").pop();
    link.onclick = () => download(file, link.textContent).catch((error) => status.message(error.message, "error"));
    return link;
  });
  $("recordings").hidden = false;
  $("recordings").replaceChildren("Recorded: ", ...links);
}

// With the token in a header, where a plain link would need it in the address.
async function download(address, name) {
  const answer = await fetch(address, authorized);
  if (!answer.ok) throw new Error(`${name} could not be fetched: ${answer.status}`);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await answer.blob());
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

// Hands

for (const [name, act] of Object.entries(show))
  $(name).onclick = () => Promise.resolve(act()).catch?.((error) => status.message(error.message, "error"));
all("button[data-source]").forEach((button) => (button.onclick = () => choose(button.dataset.source)));
all("button[data-view]").forEach((button) => (button.onclick = () => view(button.dataset.view)));
$("file").onchange = ({ target }) => {
  const [file] = target.files;
  if (file) choose("clip", file);
  target.value = ""; // so that the same file can be chosen again
};
$("slider").oninput = ({ target }) => stage.style.setProperty("--cut", `${target.value}%`);
$("prompt").oninput = remaining;
$("prompt-form").onsubmit = (event) => {
  event.preventDefault();
  const prompt = $("prompt").value.trim();
  if (prompt) instruct(prompt);
};
$("help-open").onclick = () => $("help").showModal();
$("full").hidden = !document.fullscreenEnabled;
$("pip").hidden = !document.pictureInPictureEnabled;
remaining();

const click = (name) => () => $(name).hidden || $(name).disabled || $(name).click();
listen({
  " ": click("pause"),
  b: click("bypass"),
  p: click("panic"),
  a: click("anchor"),
  r: click("record"),
  f: click("full"),
  c: () => view(stage.dataset.view === "slider" ? "side" : "slider"),
  "?": () => $("help").showModal(),
  ...Object.fromEntries([..."123456789"].map((key) => [key, () => all("#chips button")[key - 1]?.click()])),
});
