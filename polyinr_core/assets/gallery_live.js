
// The live image: interpolated between two seeds, zoomed and panned.
(() => {
  const canvas = one("#live-canvas"), context = canvas.getContext("2d");
  const coarse = document.createElement("canvas").getContext("2d");
  const box = canvas.closest(".shown");
  const [from, to, mix, zoom] = ["from", "to", "mix", "zoom"].map((name) => one(`#live-${name}`));
  const status = one("#live-status");
  const STEP = 0.125, COARSE = 64;
  const center = { x: 0.5, y: 0.5 };
  let model = null, renderer = null, latest = 0;
  coarse.canvas.width = coarse.canvas.height = COARSE;

  const affine = () => {
    const [a, b] = [from, to].map((select) => model.affine[select.selectedIndex]), t = mix.value / 100;
    return a.map((value, index) => value + t * (b[index] - value));
  };
  const span = () => 2 ** -zoom.value;
  const name = (select) => select.selectedOptions[0].textContent;

  const render = async () => {
    latest += 1;
    const number = latest, isCurrent = () => number === latest;
    const half = span() / 2, image = affine();
    const window = { x0: center.x - half, y0: center.y - half, x1: center.x + half, y1: center.y + half };
    const description = Number(mix.value) ? `${name(from)}, ${mix.value} % interpolated to ${name(to)}` : name(from);
    canvas.setAttribute("aria-label", `${description}, enlarged ${(1 / span()).toPrecision(2)} times`);
    mix.setAttribute("aria-valuetext", `${mix.value} %`);
    zoom.setAttribute("aria-valuetext", `${(1 / span()).toPrecision(2)} times`);
    box.removeAttribute("data-renderer");
    const start = performance.now();
    if (!(await renderWindow(renderer, image, coarse, window, isCurrent))) return;
    context.drawImage(coarse.canvas, 0, 0, canvas.width, canvas.height);
    if (!(await renderWindow(renderer, image, context, window, isCurrent))) return;
    const seconds = (performance.now() - start) / 1000;
    status.textContent = `${canvas.width} × ${canvas.height} pixels, rendered in ${renderer.name} in ${seconds.toFixed(seconds < 10 ? 1 : 0)} s.`;
    box.dataset.renderer = renderer.name;
  };
  const move = (x, y) => {
    center.x += x * span();
    center.y += y * span();
    render();
  };
  const moves = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] };

  for (const control of [from, to, mix, zoom]) control.addEventListener("input", render);
  for (const button of all("[data-move]", box)) button.addEventListener("click", () => move(...moves[button.dataset.move]));
  one("#live-reset").addEventListener("click", () => {
    Object.assign(center, { x: 0.5, y: 0.5 });
    zoom.value = 0;
    render();
  });
  canvas.addEventListener("keydown", (event) => {
    if (!moves[event.key]) return;
    event.preventDefault();
    move(...moves[event.key]);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (event.pointerType === "touch" || !(event.buttons & 1)) return;
    const { width, height } = canvas.getBoundingClientRect();
    move(-event.movementX / width, -event.movementY / height);
  });
  new IntersectionObserver((entries, observer) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    observer.disconnect();
    model = readModel(one("#network").textContent);
    renderer = selectRenderer(model);
    canvas.width = canvas.height = renderer.resolution;
    render();
  }).observe(canvas);
  one(".live-panel", box).hidden = false;
})();
