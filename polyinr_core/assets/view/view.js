// The page: one image, its controls, and the address that holds image and viewport.

import "./exact.js";
import { Controls } from "./controls.js";
import { showFrame } from "./frame.js";
import { Loader } from "./loader.js";
import { PlaneWindow, windowText } from "./window.js";
import { NO_RESPONSE, showError } from "./errors.js";

const MIN_PIXEL_RATIO = 0.75; // pixels of the screen to one of a tile, at least
const HOME = { x: 0.5, y: 0.5, span: 1.1 }; // the trained window with a margin
const COARSER = [0, 2, 4]; // levels above the wanted one that are rendered before it
const FIELDS = ["seed", "label", "psi", "other", "levels"];

const $ = (id) => document.getElementById(id);
const model = await (await fetch("model")).json();
const { size: tileSize, min_level: minLevel, max_level: maxLevel } = model.tiles;
const { min: worldMin, size: worldSize } = model.world;
const toViewport = (p) => (p - worldMin) / worldSize;
const query = (fields) => new URLSearchParams({ ...fields, model: model.model }); // the server refuses another model
const toPlane = (v) => worldMin + v * worldSize;

let image = {}; // the fields of the image shown
let base = "polyinr"; // its command, but for size, window and output
let shown = null; // its tiled image

const viewer = OpenSeadragon({
  element: $("viewer"),
  drawer: "canvas", // the others place tiles in float32
  showNavigationControl: false,
  preserveViewport: true,
  visibilityRatio: 1,
  constrainDuringPan: true,
  minZoomImageRatio: 1,
  maxZoomPixelRatio: 2,
  minPixelRatio: MIN_PIXEL_RATIO,
  zoomPerClick: 2,
  zoomPerScroll: 1.4,
  animationTime: matchMedia("(prefers-reduced-motion: reduce)").matches ? 0.01 : 0.6,
  maxTilesPerFrame: 4,
  maxImageCacheCount: 400,
  imageLoaderLimit: 0,
  timeout: 2 ** 31 - 1, // the loader has its own timeout
});
const viewport = viewer.viewport;
const controls = new Controls(model, { onSelect: choose, onFrame: frame });

viewer.canvas.setAttribute("role", "application");
viewer.canvas.setAttribute("aria-label", "The image: arrow keys pan, plus and minus zoom, 0 goes home");

const loader = new Loader({ rank, onError: (line) => showError("tiles", line) });

function frame() {
  showFrame(viewport, [toViewport(0), toViewport(1)], controls.isFramed);
}

// The finest level that the viewport calls for, not limited to the deepest level.
function level() {
  const pixels = viewport.getContainerSize().x * OpenSeadragon.pixelDensityRatio * viewport.getZoom(false);
  return Math.floor(Math.log2(pixels / MIN_PIXEL_RATIO));
}

function rank(job) {
  const tile = job.tile;
  const finest = Math.min(maxLevel, Math.max(minLevel, level()));
  const levels = COARSER.map((above) => Math.max(minLevel, finest - above));
  if (job.source !== shown?.source) return null;
  if (!levels.includes(tile.level)) return null;
  if (!tile.bounds.intersection(viewport.getBounds(false))) return null; // exactly: exact.js
  return [tile.level, tile.squaredDistance ?? 0];
}

// Live update: the new image is laid over the old one, which is removed when the new one is complete.
let goal = null; // the viewport to show as soon as there is an image
let latest = 0;

function show(fields) {
  const parameters = query(fields);
  const mine = ++latest;
  viewer.addTiledImage({
    tileSource: {
      width: 2 ** maxLevel,
      height: 2 ** maxLevel,
      tileSize,
      minLevel,
      maxLevel,
      getTileUrl: (z, x, y) => `tile/${z}/${x}/${y}?${parameters}`,
      hasTransparency: () => false,
      downloadTileStart: (job) => loader.start(job),
      downloadTileAbort: (job) => loader.forget(job),
    },
    success: ({ item }) => {
      if (mine !== latest) return viewer.world.removeItem(item);
      shown = item;
      busy(true);
      item.addHandler("fully-loaded-change", ({ fullyLoaded }) => {
        if (item === shown) busy(!fullyLoaded);
        if (fullyLoaded) uncover(item);
      });
      if (goal) go(goal, true);
      goal = null;
      loader.update();
    },
  });
}

function busy(is) {
  $("stage").setAttribute("aria-busy", String(is));
}

function uncover(item) {
  const items = Array.from({ length: viewer.world.getItemCount() }, (_, i) => viewer.world.getItemAt(i));
  for (const other of items.slice(0, items.indexOf(item))) viewer.world.removeItem(other);
}

// The selected image: the server returns its class and its command

let asked = 0;

async function choose() {
  const fields = controls.read();
  if (!fields) return showError("image", "A field has an invalid value.");
  const mine = ++asked;
  let answer;
  try {
    answer = await fetch(`image?${query(fields)}`);
  } catch {
    return showError("image", NO_RESPONSE);
  }
  const text = await answer.text();
  if (mine !== asked) return;
  if (!answer.ok) return showError("image", text.trim());
  showError("image", null);
  const { label, command } = JSON.parse(text);
  base = command;
  image = fields;
  const name = label === null ? "" : `, ${model.class_names[label] ?? `class ${label}`}`;
  const mixing = fields.levels ? `; levels ${fields.levels} of seed ${fields.other}` : "";
  $("caption").textContent = `Seed ${fields.seed}${name}, psi ${fields.psi}${mixing}.`;
  document.title = `Seed ${fields.seed}${name} – polyinr view`;
  show(fields);
  describe();
}

$("skip").addEventListener("click", (event) => {
  event.preventDefault(); // the fragment holds the viewport
  $("controls").focus();
});
$("copy").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText($("command").textContent);
    $("copied").textContent = "Copied.";
  } catch {
    getSelection().selectAllChildren($("command"));
    $("copied").textContent = "Selected; copy it with the keyboard.";
  }
});

// The viewport

function currentWindow() {
  const bounds = viewport.getBounds(false);
  const size = viewport.getContainerSize();
  return new PlaneWindow({
    x: toPlane(bounds.x),
    y: toPlane(bounds.y),
    width: bounds.width * worldSize,
    height: bounds.height * worldSize,
    across: Math.round(size.x),
    down: Math.round(size.y),
  });
}

function go({ x, y, span }, immediately) {
  const { x: across, y: down } = viewport.getContainerSize();
  const shorter = Math.min(across, down);
  const width = (span * across) / shorter;
  const height = (span * down) / shorter;
  const bounds = new OpenSeadragon.Rect(
    toViewport(x - width / 2),
    toViewport(y - height / 2),
    width / worldSize,
    height / worldSize,
  );
  viewport.fitBounds(bounds, immediately);
  viewport.applyConstraints(immediately);
}

function describe() {
  const here = currentWindow();
  const finest = Math.min(maxLevel, Math.max(minLevel, level()));
  const dtype = model.dtypes[finest];
  $("window").textContent = windowText(here);
  const off = model.tolerance ? ` The error is at most ${model.tolerance}/255 on 999 of 1000 pixels.` : "";
  let depth = `Rendered in ${dtype}.`;
  if (level() >= maxLevel) {
    depth =
      "This is the deepest level: smaller pixels are not resolved by float64.";
  } else if (dtype === "float64" && model.dtypes[minLevel] !== "float64") {
    depth = "Rendered in float64: float32 does not resolve pixels of this size.";
  }
  $("depth").textContent = depth + off;
  $("command").textContent =
    `${base} --size ${here.across}x${here.down} --grid=${here.grid()}` +
    `${dtype === "float64" ? " --precision float64" : ""} -o image.png`;
  $("copied").textContent = "";
  const { x, y } = here.middle();
  const span = Math.min(here.width, here.height);
  const hash = new URLSearchParams({ ...image, x, y, span }).toString();
  history.replaceState(null, "", `#${hash}`);
}

// Moving

const MOVES = {
  in: () => viewport.zoomBy(2),
  out: () => viewport.zoomBy(0.5),
  left: () => pan(-0.25, 0),
  right: () => pan(0.25, 0),
  up: () => pan(0, -0.25),
  down: () => pan(0, 0.25),
  home: () => go(HOME, false),
};

function pan(x, y) {
  const bounds = viewport.getBounds(false);
  viewport.panBy(new OpenSeadragon.Point(x * bounds.width, y * bounds.height));
}

for (const button of document.querySelectorAll("[data-move]")) {
  button.addEventListener("click", () => {
    MOVES[button.dataset.move]();
    viewport.applyConstraints();
  });
}

viewer.addHandler("canvas-key", (event) => {
  const { key, ctrlKey, altKey, metaKey } = event.originalEvent;
  if (ctrlKey || altKey || metaKey || "rRfFjk".includes(key)) {
    event.preventDefaultAction = true; // the command cannot express rotation or flipping
  } else if (key === "0" || key === "Home") {
    event.preventDefaultAction = true;
    go(HOME, false);
  }
});
viewer.addHandler("viewport-change", () => loader.update());
viewer.addHandler("update-viewport", frame);
viewer.addHandler("animation-finish", () => {
  loader.update();
  viewer.forceRedraw();
  describe();
});
viewer.addHandler("resize", () => requestAnimationFrame(describe));

// The address: the fragment holds the image and the viewport

function follow() {
  const given = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
  const start = Object.fromEntries(Object.entries(model.initial).filter(([, value]) => value !== null));
  const fields = FIELDS.some((name) => name in given) ? given : start;
  controls.fill(fields);
  const [x, y, span] = ["x", "y", "span"].map((name) => (name in given ? Number(given[name]) : NaN));
  goal = [x, y, span].every(Number.isFinite) && span > 0 ? { x, y, span } : HOME;
  choose();
}

addEventListener("hashchange", follow);
follow();
