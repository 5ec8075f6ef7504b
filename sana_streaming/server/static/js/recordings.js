// Files of the recording that ended last.

import { $ } from "./dom.js";
import * as status from "./status.js";

// authorized: options of `fetch`, with the token in a header, where a plain link would need it in the address.
export function offer(files, authorized) {
  const buttons = files.map((file) => {
    const button = document.createElement("button");
    const name = file.split("/").pop();
    button.type = "button";
    button.textContent = name;
    button.setAttribute("aria-label", `Download ${name}`);
    button.onclick = () => download(file, name, authorized).catch((error) => status.message(error.message, "error"));
    return button;
  });
  $("recordings").hidden = false;
  $("recordings").replaceChildren("Recorded: ", ...buttons);
  $("recordings").scrollIntoView({ block: "nearest" });
}

async function download(address, name, authorized) {
  const answer = await fetch(address, authorized);
  if (!answer.ok) throw new Error(`${name} could not be fetched: ${answer.status}`);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await answer.blob());
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
