// OpenSeadragon compares rectangles that may be turned, to an absolute 1e-10: in a deep view all would overlap.
// Here none is turned, and they are compared as they are.

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
