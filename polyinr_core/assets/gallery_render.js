
// Renders the network of this page in WebGL2, or else in JavaScript, with the arithmetic of the Python code.
//   x_0 = act(A_0 p),  x_i = act(W_i (x_{i-1} * mod(A_i p)) + b_i),  colors = C x + c,  p = (x, y, 1)
// act is LeakyReLU, then a clamp; mod is LeakyReLU in the release form and the identity in the paper form.
// The affine parameters A of an image are n-vectors for x, y and 1, level after level.

const readModel = (text) => {
  const header = JSON.parse(text);
  const bytes = Uint8Array.from(atob(header.numbers), (letter) => letter.charCodeAt(0));
  const numbers = new Float32Array(bytes.buffer);
  const { channels: n, levels } = header;
  let at = 0;
  const take = (count) => numbers.subarray(at, (at += count));
  const products = Array.from({ length: levels - 1 }, () => ({ weight: take(n * n), bias: take(n) }));
  const colors = { weight: take(3 * n), bias: take(4) };
  const affine = Array.from({ length: header.images }, () => take(levels * 3 * n));
  return { ...header, products, colors, affine };
};

// A renderer has a name, a suitable image size, the maximum width and height of a tile, and tile(affine, box), whose
// result is an argument of drawImage. A box is { x, y, dx, dy, width, height }: the coordinates of the first pixel, the
// step to the next, and the number of pixels.

const canvasOf = (width, height) => Object.assign(document.createElement("canvas"), { width, height });

const scriptRenderer = (model) => {
  const { channels: n, levels, slope, clamp, leaky } = model;
  const leakyRelu = (v) => (v < 0 ? v * slope : v);
  const act = (v) => Math.max(-clamp, Math.min(clamp, leakyRelu(v)));
  const before = new Float32Array(n), after = new Float32Array(n);
  const canvas = canvasOf(64, 4), context = canvas.getContext("2d");
  const level = (affine, index, c, x, y) => {
    const row = 3 * n * index + c;
    return affine[row] * x + affine[row + n] * y + affine[row + 2 * n];
  };
  const pixel = (affine, x, y, out, to) => {
    for (let c = 0; c < n; c += 1) after[c] = act(level(affine, 0, c, x, y));
    for (let index = 1; index < levels; index += 1) {
      const { weight, bias } = model.products[index - 1];
      for (let c = 0; c < n; c += 1) {
        const m = level(affine, index, c, x, y);
        before[c] = after[c] * (leaky ? leakyRelu(m) : m);
      }
      for (let o = 0; o < n; o += 1) {
        let a = 0, b = 0, c = 0, d = 0;
        const row = o * n;
        for (let k = 0; k < n; k += 4) {
          a += weight[row + k] * before[k];
          b += weight[row + k + 1] * before[k + 1];
          c += weight[row + k + 2] * before[k + 2];
          d += weight[row + k + 3] * before[k + 3];
        }
        after[o] = act(a + b + c + d + bias[o]);
      }
    }
    for (let o = 0; o < 3; o += 1) {
      let sum = model.colors.bias[o];
      for (let k = 0; k < n; k += 1) sum += model.colors.weight[o * n + k] * after[k];
      out[to + o] = Math.floor(Math.max(0, Math.min(255, (sum + 1) * 127.5)));
    }
    out[to + 3] = 255;
  };
  return {
    name: "JavaScript", resolution: 128, width: canvas.width, height: canvas.height,
    tile(affine, box) {
      const image = context.createImageData(canvas.width, canvas.height);
      for (let row = 0; row < box.height; row += 1) {
        for (let column = 0; column < box.width; column += 1) {
          const to = 4 * (row * canvas.width + column);
          pixel(affine, box.x + column * box.dx, box.y + row * box.dy, image.data, to);
        }
      }
      context.putImageData(image, 0, 0);
      return canvas;
    },
  };
};

// Features are stored in float textures: channels 4 g ... 4 g + 3 of the tile's pixel (i, j) at (i, j + height g), already
// multiplied by the affine form of the next level. One pass computes one level of one tile.

const CORNERS = `#version 300 es
void main() {
  gl_Position = vec4(gl_VertexID == 1 ? 3.0 : -1.0, gl_VertexID == 2 ? 3.0 : -1.0, 0.0, 1.0);
}`;
const SHARED = `#version 300 es
precision highp float;
precision highp int;
precision highp sampler2D;
uniform sampler2D parameters, before, weight, bias;
uniform vec4 box;  // the coordinates of the first pixel, the step to the next
uniform int level, height, groups, levels;
uniform float slope, limit;
uniform bool leaky;
vec4 leakyRelu(vec4 v) { return mix(v, slope * v, vec4(lessThan(v, vec4(0.0)))); }
vec4 act(vec4 v) { return clamp(leakyRelu(v), -limit, limit); }
vec4 affine(int index, int g, vec2 p) {
  int row = 3 * index;
  return texelFetch(parameters, ivec2(g, row), 0) * p.x + texelFetch(parameters, ivec2(g, row + 1), 0) * p.y
    + texelFetch(parameters, ivec2(g, row + 2), 0);
}
vec4 dots(int row, ivec2 at) {
  vec4 sum = vec4(0.0);
  for (int k = 0; k < groups; k += 1) {
    vec4 x = texelFetch(before, ivec2(at.x, at.y + height * k), 0);
    sum += vec4(dot(texelFetch(weight, ivec2(k, row), 0), x), dot(texelFetch(weight, ivec2(k, row + 1), 0), x),
      dot(texelFetch(weight, ivec2(k, row + 2), 0), x), dot(texelFetch(weight, ivec2(k, row + 3), 0), x));
  }
  return sum + texelFetch(bias, ivec2(row / 4, 0), 0);
}
out vec4 result;
`;
const LEVEL = `${SHARED}
void main() {
  ivec2 at = ivec2(gl_FragCoord.xy);
  int g = at.y / height;
  at.y -= g * height;
  vec2 p = box.xy + vec2(at) * box.zw;
  vec4 x = act(level == 0 ? affine(0, g, p) : dots(4 * g, at));
  if (level + 1 < levels) {
    vec4 m = affine(level + 1, g, p);
    x *= leaky ? leakyRelu(m) : m;
  }
  result = x;
}`;
const COLORS = `${SHARED}
void main() {
  ivec2 at = ivec2(gl_FragCoord.xy);
  at.y = height - 1 - at.y;
  result = vec4(floor(clamp((dots(0, at).xyz + 1.0) * 127.5, 0.0, 255.0)) / 255.0, 1.0);
}`;

const SOFTWARE = /swiftshader|llvmpipe|softpipe|software|basic render/i;

// Null without WebGL2, or if a CPU emulates it, which is slower than JavaScript.
const webglRenderer = (model, { allowSoftware = false } = {}) => {
  const { channels: n, levels } = model;
  const groups = n / 4, width = 64, height = Math.max(1, Math.min(64, Math.floor(2048 / groups)));
  const canvas = canvasOf(width, height);
  const attributes = { alpha: false, antialias: false, preserveDrawingBuffer: true, failIfMajorPerformanceCaveat: !allowSoftware };
  const gl = canvas.getContext("webgl2", attributes);
  if (!gl || !gl.getExtension("EXT_color_buffer_float")) return null;
  const named = gl.getExtension("WEBGL_debug_renderer_info")?.UNMASKED_RENDERER_WEBGL ?? gl.RENDERER;
  if (!allowSoftware && SOFTWARE.test(gl.getParameter(named))) return null;
  if (gl.getParameter(gl.MAX_TEXTURE_SIZE) < Math.max(height * groups, n, 3 * levels)) return null;

  const texture = (columns, rows, values) => {
    const made = gl.createTexture();
    gl.bindTexture(gl.TEXTURE_2D, made);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA32F, columns, rows, 0, gl.RGBA, gl.FLOAT, values);
    for (const filter of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_2D, filter, gl.NEAREST);
    return made;
  };
  const program = (source) => {
    const made = gl.createProgram();
    for (const [type, text] of [[gl.VERTEX_SHADER, CORNERS], [gl.FRAGMENT_SHADER, source]]) {
      const shader = gl.createShader(type);
      gl.shaderSource(shader, text);
      gl.compileShader(shader);
      gl.attachShader(made, shader);
    }
    gl.linkProgram(made);
    if (!gl.getProgramParameter(made, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(made));
    gl.useProgram(made);
    const uniform = (name) => gl.getUniformLocation(made, name);
    ["parameters", "before", "weight", "bias"].forEach((name, unit) => gl.uniform1i(uniform(name), unit));
    gl.uniform1i(uniform("height"), height);
    gl.uniform1i(uniform("groups"), groups);
    gl.uniform1i(uniform("levels"), levels);
    gl.uniform1i(uniform("leaky"), model.leaky ? 1 : 0);
    gl.uniform1f(uniform("slope"), model.slope);
    gl.uniform1f(uniform("limit"), model.clamp);
    return { made, level: uniform("level"), box: uniform("box") };
  };

  const four = new Float32Array(4 * n);  // to_rgb's weights, padded with a row of zeros
  four.set(model.colors.weight);
  const products = model.products.map(({ weight, bias }) => ({
    weight: texture(groups, n, weight), bias: texture(groups, 1, bias),
  }));
  const colors = { weight: texture(groups, 4, four), bias: texture(1, 1, model.colors.bias) };
  const targets = [0, 1].map(() => {
    const holds = texture(width, height * groups, null), frame = gl.createFramebuffer();
    gl.bindFramebuffer(gl.FRAMEBUFFER, frame);
    gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, holds, 0);
    return { holds, frame };
  });
  if (gl.checkFramebufferStatus(gl.FRAMEBUFFER) !== gl.FRAMEBUFFER_COMPLETE) return null;
  const [features, colored] = [program(LEVEL), program(COLORS)];
  const bound = texture(groups, 3 * levels, model.affine[0]);
  const bind = (unit, held) => {
    gl.activeTexture(gl.TEXTURE0 + unit);
    gl.bindTexture(gl.TEXTURE_2D, held);
  };
  let latest = null;

  return {
    name: "WebGL2", resolution: 256, width, height,
    tile(affine, box) {
      bind(0, bound);
      if (affine !== latest) gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, 0, groups, 3 * levels, gl.RGBA, gl.FLOAT, affine);
      latest = affine;
      gl.useProgram(features.made);
      gl.uniform4f(features.box, box.x, box.y, box.dx, box.dy);
      gl.viewport(0, 0, width, height * groups);
      for (let index = 0; index < levels; index += 1) {
        const [to, from] = index % 2 ? [targets[1], targets[0]] : targets;
        const { weight, bias } = index ? products[index - 1] : colors;
        [from.holds, weight, bias].forEach((held, unit) => bind(unit + 1, held));
        gl.bindFramebuffer(gl.FRAMEBUFFER, to.frame);
        gl.uniform1i(features.level, index);
        gl.drawArrays(gl.TRIANGLES, 0, 3);
      }
      const last = targets[(levels - 1) % 2];
      [last.holds, colors.weight, colors.bias].forEach((held, unit) => bind(unit + 1, held));
      gl.bindFramebuffer(gl.FRAMEBUFFER, null);
      gl.useProgram(colored.made);
      gl.viewport(0, 0, width, height);
      gl.drawArrays(gl.TRIANGLES, 0, 3);
      return gl.isContextLost() ? null : canvas;
    },
  };
};

const selectRenderer = (model) => {
  try {
    return webglRenderer(model) ?? scriptRenderer(model);
  } catch {
    return scriptRenderer(model);
  }
};

// Render a window of the plane, its borders at the outermost pixel centers; false once `isCurrent` returns false.
const renderWindow = async (renderer, affine, context, { x0, y0, x1, y1 }, isCurrent) => {
  const { width, height } = context.canvas;
  const dx = (x1 - x0) / (width - 1), dy = (y1 - y0) / (height - 1);
  for (let top = 0; top < height; top += renderer.height) {
    for (let left = 0; left < width; left += renderer.width) {
      const size = { width: Math.min(renderer.width, width - left), height: Math.min(renderer.height, height - top) };
      const tile = renderer.tile(affine, { x: x0 + left * dx, y: y0 + top * dy, dx, dy, ...size });
      if (!tile) return false;
      context.drawImage(tile, 0, 0, size.width, size.height, left, top, size.width, size.height);
      await new Promise((done) => { setTimeout(done); });
      if (!isCurrent()) return false;
    }
  }
  return true;
};
