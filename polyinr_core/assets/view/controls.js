// The fields that say which image is shown.

const WAIT = 200; // milliseconds without typing before an image is asked for
const $ = (id) => document.getElementById(id);

export class Controls {
  // chosen() hears that the fields say another image, framed() that the square is to be shown or not.
  constructor(facts, { chosen, framed }) {
    this.chosen = chosen;
    this.levels = Array.from({ length: facts.levels }, (_, i) => {
      const label = document.createElement("label");
      const box = Object.assign(document.createElement("input"), { type: "checkbox", value: String(i) });
      label.append(box, `level ${i}`);
      $("levels").append(label);
      return box;
    });
    for (let i = 0; i < facts.classes; i++) {
      $("label").add(new Option(facts.class_names[i] ?? `class ${i}`, String(i)));
    }
    $("class-row").hidden = !facts.classes;
    $("controls").addEventListener("submit", (event) => event.preventDefault());
    $("controls").addEventListener("input", (event) => {
      if (event.target.id === "slider") $("psi").value = $("slider").value;
      if (event.target.id === "psi") $("slider").value = $("psi").value;
      if (event.target.id === "framed") framed();
      else this.changed();
    });
    $("another").addEventListener("click", () => {
      $("seed").value = String(Math.floor(Math.random() * 1e6));
      this.changed();
    });
  }

  changed() {
    clearTimeout(this.typing);
    this.typing = setTimeout(this.chosen, WAIT);
  }

  get isFramed() {
    return $("framed").checked;
  }

  fill(fields) {
    const label = fields.label ?? "";
    if (![...$("label").options].some((option) => option.value === String(label))) {
      $("label").add(new Option(`class ${label}`, label)); // there is none: the server says so
    }
    $("seed").value = fields.seed ?? "0";
    $("label").value = label;
    $("psi").value = $("slider").value = fields.psi ?? "1";
    $("other").value = fields.other ?? "1";
    const chosen = (fields.levels ?? "").split(",");
    for (const box of this.levels) box.checked = chosen.includes(box.value);
  }

  // The fields by their names, as the server takes them; null where one holds no number that it can take.
  read() {
    if (!$("controls").checkValidity()) return null;
    const fields = { seed: $("seed").value, psi: $("psi").value };
    if ($("label").value) fields.label = $("label").value;
    const levels = this.levels.filter((box) => box.checked).map((box) => box.value);
    if (levels.length) Object.assign(fields, { other: $("other").value, levels: levels.join(",") });
    return fields;
  }
}
