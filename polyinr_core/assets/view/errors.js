// The errors of tiles and of the image, each shown until it is resolved.

export const NO_RESPONSE = "The server does not respond. If it was stopped, start polyinr view again.";
const errors = new Map();

export function showError(source, line) {
  if ((errors.get(source) ?? null) === line) return;
  errors.set(source, line);
  document.getElementById("error").textContent = [...new Set(errors.values())].filter(Boolean).join(" ");
}
