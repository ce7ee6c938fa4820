
"use strict";
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const one = (selector, root = document) => root.querySelector(selector);
const reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");
const REDUCED_FRAMES_PER_SECOND = 2;
const MAX_ENLARGEMENT = 3;  // in the dialog

// Commands wrap between options, as in the HTML.
const writeCommand = (code, command) => {
  const parts = command.split(/ (?=-)/).map((textContent) => Object.assign(document.createElement("span"), { textContent }));
  code.replaceChildren(...parts.flatMap((part, index) => (index ? [" ", part] : [part])));
};

// Slides: without JavaScript all are visible; here the slider selects the visible one.
for (const box of all(".slides")) {
  const slides = all(".slide", box);
  const range = one("input", box), value = one(".value", box), play = one(".play", box);
  const command = one(":scope > .command code", box);
  let timer = 0;

  const show = (index) => {
    slides.forEach((slide, other) => { slide.hidden = other !== index; });
    const { name, command: text } = slides[index].dataset;
    range.value = index;
    range.setAttribute("aria-valuetext", name);
    value.textContent = name;
    if (text) writeCommand(command, text);
  };
  const stop = () => {
    clearInterval(timer);
    timer = 0;
    value.setAttribute("aria-live", "polite");
    play.setAttribute("aria-pressed", "false");
    play.textContent = "Play";
  };
  const start = () => {
    const speed = reducedMotion.matches ? REDUCED_FRAMES_PER_SECOND : Number(box.dataset.framesPerSecond);
    value.setAttribute("aria-live", "off");
    play.setAttribute("aria-pressed", "true");
    play.textContent = "Pause";
    timer = setInterval(() => show((Number(range.value) + 1) % slides.length), 1000 / speed);
  };

  range.addEventListener("input", () => {
    if (timer) stop();
    show(Number(range.value));
  });
  play?.addEventListener("click", () => (timer ? stop() : start()));
  new IntersectionObserver((entries, observer) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    for (const image of all("img", box)) image.loading = "eager";  // so that slides appear without delay
    observer.disconnect();
  }, { rootMargin: "600px" }).observe(box);
  one(".control", box).hidden = false;
  box.classList.add("active");
  show(Number(range.value));
}

// Print all images.
addEventListener("beforeprint", () => {
  for (const image of all("img")) image.loading = "eager";
});

// A dialog shows an image enlarged, with its command.
const dialog = one("#large");
const large = one("img", dialog);
let shown = [], at = 0;

const open = (index) => {
  at = (index + shown.length) % shown.length;
  const link = shown[at], image = one("img", link);
  large.src = link.href;
  large.alt = image.alt;
  large.width = image.width;
  large.height = image.height;
  const exact = link.classList.contains("exact");
  large.style.imageRendering = exact ? "pixelated" : "auto";
  large.style.maxWidth = exact ? "" : `${MAX_ENLARGEMENT * image.width}px`;
  one("#large-caption").textContent = link.dataset.caption;
  writeCommand(one("code", dialog), link.dataset.command);
  one(".file", dialog).href = link.href;
};
document.addEventListener("click", (event) => {
  const link = event.target.closest("a.image");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
  event.preventDefault();
  shown = all("a.image", link.closest(".slide, .shown"));
  open(shown.indexOf(link));
  dialog.showModal();
});
one(".close", dialog).addEventListener("click", () => dialog.close());
one(".before", dialog).addEventListener("click", () => open(at - 1));
one(".after", dialog).addEventListener("click", () => open(at + 1));
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
dialog.addEventListener("close", () => shown[at].focus());
dialog.addEventListener("keydown", (event) => {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (step) open(at + step);
});
for (const link of all("a.image")) link.setAttribute("aria-haspopup", "dialog");

// Copy a command to the clipboard; if the browser forbids it, select the command instead.
for (const button of all(".copy")) {
  const words = button.innerHTML;
  let timer = 0;
  button.hidden = false;
  button.addEventListener("click", async () => {
    const code = one("code", button.parentElement);
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(code);
      button.textContent = "Selected";
    }
    clearTimeout(timer);
    timer = setTimeout(() => { button.innerHTML = words; }, 1500);
  });
}
