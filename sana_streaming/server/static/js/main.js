// The page: what is clicked, typed and told, and how the parts meet.

import * as chips from "./chips.js";
import { Commands } from "./commands.js";
import { Control } from "./control.js";
import { $, press, pressed, set } from "./dom.js";
import { listen } from "./keys.js";
import { Output } from "./output.js";
import { Past } from "./past.js";
import { Picker, refusal } from "./picker.js";
import * as prompt from "./prompt.js";
import * as recordings from "./recordings.js";
import { Road } from "./road.js";
import * as settings from "./settings.js";
import { Sound } from "./sound.js";
import { Source } from "./source.js";
import * as status from "./status.js";
import * as views from "./view.js";

const query = new URLSearchParams(location.search);
const token = new URLSearchParams(location.hash.slice(1)).get("token");
const authorized = { headers: token ? { Authorization: `Bearer ${token}` } : {} };

const source = new Source($("source"));
const output = new Output($("edited"), source.times);
const past = new Past($("before"));
const sound = new Sound();
const control = new Control(token);
const commands = new Commands(control);
const road = new Road(control, output, source, sound, { always: query.get("transport") === "ws", authorized });
const picker = new Picker(source, sound, chosen);
let opened = null; // as the server told it
let state = null; // likewise, last
let renewing = false; // the session ends so that another one begins
const wished = { pause: false, bypass: false, panic: false }; // for a session that replaces a lost one

// Session

const alike = (a, b) => Math.abs(Math.log((a.width * b.height) / (a.height * b.width))) < 0.05;

function chosen() {
  if (!control.busy) begin();
  else if (control.isOpen && (state?.recording || alike(source.shape, control.wanted))) run(opened);
  else if (control.isOpen) renew();
}

function begin() {
  if (!prompt.text()) {
    status.message("type an instruction first", "error");
    prompt.focus();
    return;
  }
  veil("Warming up…");
  output.shown = 0;
  control.open({ prompt: prompt.text(), ...source.shape, ...settings.chosen, stamped: true });
  run(source.shape); // to be seen while it waits
}

// Another session takes the place of this one, for what is settled when a session begins.
function renew() {
  renewing = true;
  control.send("close");
}

function run({ width, height, fps }) {
  source.run(width, height, control.wanted.height, fps);
  views.shape(width, height, source.canvas.height);
}

function veil(text) {
  $("veil").hidden = false;
  set("veil", text);
}

const connected = () => status.connection([road.text, state?.state ?? "opening"].filter(Boolean).join(", "));

function leave() {
  opened = state = null;
  road.close();
  source.ticker.postMessage(0);
  enable();
}

function ended(text) {
  leave();
  status.connection("not connected");
  veil(`${text}. Press Apply to begin again.`);
}

const heard = {
  connecting() {
    status.connection(control.tries ? "reconnecting" : "connecting");
    enable();
  },
  opened(message) {
    opened = message;
    run(message);
    output.resize(message.width, message.height);
    past.resize(message.width, message.height);
    set("model", message.model);
    prompt.limit(message.prompt_limit);
    chips.fill(message.edits, (example) => {
      prompt.fill(example);
      instruct(example);
    });
    enable();
    if (message.resumed) {
      status.message("connected again");
      if (renewing) control.send("close");
    } else {
      renewing = false;
      prompt.receipt("in force from the beginning", "applied");
      settings.receipt("");
      for (const command of ["bypass", "panic"]) if (wished[command]) control.send(command, { on: true });
      if (wished.pause) control.send("pause");
    }
    road.open();
  },
  state(message) {
    const first = state === null;
    state = message;
    if (first && message.prompt !== control.wanted.prompt) instruct(control.wanted.prompt); // typed while offline
    if (first && message.seed !== control.wanted.seed) reseed();
    chips.mark(message.prompt);
    settings.tell(message);
    label("pause", message.state === "paused");
    for (const name of ["bypass", "panic"]) press($(name), message[name]);
    label("record", message.recording);
    connected();
  },
  stats(message) {
    status.stats(message);
    connected();
  },
  warning: ({ message }) => status.message(message, "warning"),
  error({ message }) {
    status.message(message, "error");
    if (!control.busy) ended(message);
  },
  queued: ({ position }) => {
    status.connection(`waiting, place ${position}`);
    veil(`The server is full: place ${position} in the queue.`);
  },
  answer: (message) => road.transport?.answer?.(message),
  candidate: (message) => road.transport?.candidate?.(message),
  picture: (data) => road.transport?.picture?.(data),
  recorded: ({ files }) => recordings.offer(files, authorized),
  closed({ reason }) {
    if (!renewing) {
      ended(`The session ended: ${reason || "closed"}`);
      return;
    }
    leave();
    begin();
  },
  lost({ was }) {
    state = null;
    road.lost();
    status.connection("reconnecting");
    if (was) status.message("the connection was lost; trying again", "warning", 0);
    enable();
  },
};
for (const [type, hear] of Object.entries(heard)) control.addEventListener(type, ({ detail }) => hear(detail));
addEventListener("pagehide", () => control.send("close")); // makes room for others at once

// Pictures and sound

source.onframe = (canvas, stamp) => {
  if (views.slides()) past.keep(canvas, stamp);
  else past.forget();
  road.transport?.send(canvas, stamp);
};
output.onstamp = (stamp) => views.slides() && past.show(stamp);
output.onfirst = () => {
  $("veil").hidden = true;
  $("full").disabled = $("pip").disabled = false;
};
road.onchange = () => {
  if (control.isOpen) connected();
  press($("microphone"), source.kind !== "clip" && sound.track !== null);
  $("mute").hidden = !sound.track || !road.carriesSound;
  press($("mute"), !sound.audible);
};
road.onwarning = (text) => status.message(text, "warning");
setInterval(() => status.glass(output.delay), 500);

// Commands

// What holds now and in every session that replaces this one, unless the server refuses it.
function want(type, field, value, show) {
  control.wanted[field] = value;
  commands.ask(type, { [field]: value }, (text, kind) => {
    show(text, kind);
    if (kind === "refused" && state) control.wanted[field] = state[field];
  });
}

function instruct(text) {
  if (control.busy) want("set_prompt", "prompt", text, prompt.receipt);
  else if (source.ready) begin();
  else status.message("choose a source first");
}

function reseed() {
  if (control.busy) want("set_seed", "seed", settings.chosen.seed, settings.receipt);
  else settings.receipt("when a session begins");
}

prompt.listen(instruct);
settings.listen({
  onseed: reseed,
  onsteps() {
    settings.receipt(control.busy ? "a new session begins" : "when a session begins");
    if (control.busy) renew();
  },
});

// Show

const LABELS = { pause: ["Pause", "Go on"], record: ["Record", "Stop recording"] };

function label(name, on) {
  press($(name), on);
  $(name).firstChild.data = `${LABELS[name][+on]} `;
}

function enable() {
  for (const name of ["pause", "bypass", "panic", "anchor", "record", "reset"]) $(name).disabled = !control.isOpen;
  $("restart").disabled = control.busy && !control.isOpen;
}

function toggle(name) {
  if (!state) return;
  wished[name] = !state[name];
  control.send(name, { on: wished[name] });
}

const show = {
  pause() {
    if (!state) return;
    wished.pause = state.state !== "paused";
    control.send(wished.pause ? "pause" : "resume");
  },
  bypass: () => toggle("bypass"),
  panic: () => toggle("panic"),
  record: () => state && control.send("record", { on: !state.recording }),
  anchor: () => commands.ask("anchor", {}, (text) => status.message(`anchor: ${text}`)),
  reset: () => commands.ask("reset", {}, settings.receipt),
  async microphone() {
    if (pressed($("microphone"))) sound.stop();
    else if (!road.carriesSound) road.onwarning("there is no sound over the WebSocket");
    else await sound.microphone().catch((error) => status.message(refusal(error, "microphone"), "error"));
  },
  mute() {
    sound.hear(pressed($("mute")));
    if (sound.audible && source.kind !== "clip") status.message("you hear the microphone: use headphones", "warning");
  },
  full: views.full,
  pip: views.pip,
  mirror() {
    press($("mirror"), !pressed($("mirror")));
    picker.mirror();
  },
};

for (const [name, act] of Object.entries(show))
  $(name).onclick = async () => {
    try {
      await act();
    } catch (error) {
      status.message(error.message, "error");
    }
  };
$("help-open").onclick = () => $("help").showModal();

const click = (name) => () => $(name).hidden || $(name).disabled || $(name).click();
listen({
  " ": click("pause"),
  b: click("bypass"),
  p: click("panic"),
  a: click("anchor"),
  r: click("record"),
  f: click("full"),
  m: click("mute"),
  c: views.compare,
  "?": () => $("help").showModal(),
  ...Object.fromEntries([..."123456789"].map((key) => [key, () => chips.pick(key)])),
});
