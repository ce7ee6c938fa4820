// The frame of the trained window, drawn over the image where it is visible.

const BEYOND = 10; // pixels outside the screen at which lines are cut off

export function showFrame(viewport, [low, high], isShown) {
  const size = viewport.getContainerSize();
  const start = viewport.pixelFromPoint(new OpenSeadragon.Point(low, low), true);
  const end = viewport.pixelFromPoint(new OpenSeadragon.Point(high, high), true);
  const [left, top] = [start.x, start.y].map((v) => Math.max(-BEYOND, v));
  const [right, bottom] = [Math.min(size.x + BEYOND, end.x), Math.min(size.y + BEYOND, end.y)];
  const box = document.getElementById("frame");
  box.hidden = !isShown || right <= left || bottom <= top;
  if (box.hidden) return;
  const [width, height] = [right - left, bottom - top];
  for (const [name, value] of Object.entries({ left, top, width, height })) box.style[name] = `${value}px`;
}
