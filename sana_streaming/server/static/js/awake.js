// A phone that is used as a camera does not fall asleep.

let wanted = false;
let lock = null;

async function keep() {
  await lock?.release();
  lock = null;
  if (wanted && !document.hidden) lock = (await navigator.wakeLock?.request("screen").catch(() => null)) ?? null;
}

export function awake(on) {
  wanted = on;
  keep();
}

document.addEventListener("visibilitychange", keep); // the lock of a page that is not seen is taken away
