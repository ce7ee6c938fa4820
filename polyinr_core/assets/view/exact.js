// OpenSeadragon compares rotated rectangles with an absolute tolerance of 1e-10: at deep levels all would overlap.
// Nothing is rotated here, so rectangles are compared exactly.

const { Rect } = OpenSeadragon;

Rect.prototype.intersection = function (other) {
  const left = Math.max(this.x, other.x);
  const top = Math.max(this.y, other.y);
  const width = Math.min(this.x + this.width, other.x + other.width) - left;
  const height = Math.min(this.y + this.height, other.y + other.height) - top;
  return width > 0 && height > 0 ? new Rect(left, top, width, height) : null;
};

Rect.prototype.containsPoint = function (point) {
  const [x, y] = [point.x - this.x, point.y - this.y];
  return x >= 0 && y >= 0 && x <= this.width && y <= this.height;
};
