// A window of the plane, shown in `across` x `down` pixels of the screen, and its text.

export class PlaneWindow {
  constructor({ x, y, width, height, across, down }) {
    Object.assign(this, { x, y, width, height, across, down });
  }

  get pitch() {
    return this.width / this.across;
  }

  get zoom() {
    return 1 / Math.min(this.width, this.height);
  }

  middle() {
    return { x: this.x + this.width / 2, y: this.y + this.height / 2 };
  }

  // The centers of the outermost pixels, the value of --grid.
  grid() {
    const spans = [
      [this.x, this.width, this.across],
      [this.y, this.height, this.down],
    ].map(([low, extent, count]) => `${low + extent / count / 2}:${low + extent - extent / count / 2}`);
    return spans.join(",");
  }
}

export function windowText(shown) {
  const digits = Math.max(2, Math.ceil(-Math.log10(shown.pitch)));
  const [x0, x1, y0, y1] = [shown.x, shown.x + shown.width, shown.y, shown.y + shown.height].map((v) =>
    v.toFixed(Math.min(17, digits)),
  );
  const inside = x0 >= 0 && x1 <= 1 && y0 >= 0 && y1 <= 1;
  const outside = x1 < 0 || x0 > 1 || y1 < 0 || y0 > 1;
  const where = inside ? "" : outside ? " It lies outside the trained window." : " Part of it lies outside the trained window.";
  return (
    `Window x ${x0} to ${x1}, y ${y0} to ${y1}; zoom ${figure(shown.zoom)}; ` +
    `a pixel spans ${figure(shown.pitch)} of the trained window.${where}`
  );
}

function figure(value) {
  return Number(value.toPrecision(3)).toString();
}
