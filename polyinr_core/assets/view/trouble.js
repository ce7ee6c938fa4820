// What is wrong, with the tiles and with the image, each until it is over.

export const SILENT = "The server does not answer. Has it been stopped? Start polyinr view again.";
const troubles = new Map();

export function say(what, line) {
  if ((troubles.get(what) ?? null) === line) return;
  troubles.set(what, line);
  document.getElementById("trouble").textContent = [...new Set(troubles.values())].filter(Boolean).join(" ");
}
