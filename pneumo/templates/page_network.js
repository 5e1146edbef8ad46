// The networks in plain JavaScript. A map is {c, h, w, v}: channels, height, width, and the values channel by channel.

// The numbers of a part, as `pneumo.page` packs them: whole numbers of two or three bytes times a scale
function unpackedPart(name) {
  const {base64, tensors} = PARTS[name], coded = atob(base64);
  const read = ([at, shape, width, scale]) => {
    const v = new Float64Array(shape.reduce((a, b) => a*b)), shift = 32-8*width;
    for (let i = 0, from = at; i < v.length; i++) {
      let whole = 0;
      for (let b = 0; b < width; b++) whole |= coded.charCodeAt(from++) << (8*b + shift);
      v[i] = (whole >> shift)*scale;   // shifted back with its sign
    }
    return Object.assign(v, {shape});
  };
  return Object.fromEntries(Object.entries(tensors).map(([key, where]) => [key, read(where)]));
}

// A filter {no, ni, k, stride, bias, w}; w stands in groups of four output channels, ready for `convolved`
function filter(tensors, name, stride) {
  const w = tensors[name], [no, ni, k] = w.shape;
  return grouped({no, ni, k, stride, bias: tensors[`${name}.bias`]}, w);
}

function grouped(f, w) {
  const n = f.ni*f.k*f.k, out = new Float64Array(w.length);
  for (let o = 0; o < f.no; o++) for (let i = 0; i < n; i++) out[(o >> 2)*4*n + 4*i + o%4] = w[o*n+i];
  return {...f, w: out, plain: w};
}

function network(name) {   // {stem, blocks, weight, bias}: from the numbers of a part
  const t = unpackedPart(name), blocks = [], stride = PARTS[name].stride;
  for (let i = 0; t[`${i}.first`]; i++) {
    const skip = t[`${i}.skip`] && filter(t, `${i}.skip`, 1);
    const step = skip ? 2 : 1;   // a block with a convolution in its shortcut halves the sides
    blocks.push({first: filter(t, `${i}.first`, step), second: filter(t, `${i}.second`, 1), skip, step});
  }
  return {...t, stem: filter(t, "stem", stride), blocks};
}

function padded({c, h, w, v}, p) {
  if (!p) return v;
  const wide = w+2*p, out = new Float64Array(c*(h+2*p)*wide);
  for (let i = 0; i < c; i++) for (let y = 0; y < h; y++)
    out.set(v.subarray((i*h+y)*w, (i*h+y+1)*w), (i*(h+2*p)+y+p)*wide + p);
  return out;
}

// A convolution: the surroundings of a row's pixels are laid side by side, then multiplied by the filters
function convolved(x, f) {
  const h = Math.ceil(x.h/f.stride), w = Math.ceil(x.w/f.stride), out = new Float64Array(f.no*h*w);
  const p = f.k >> 1, v = padded(x, p), high = x.h+2*p, wide = x.w+2*p, n = f.ni*f.k*f.k;
  const around = new Float64Array((w + w%2)*n);   // of an even number of pixels: they are taken in pairs
  for (let y = 0; y < h; y++) {
    for (let c = 0, to = 0; c < w; c++) for (let i = 0; i < f.ni; i++) for (let ky = 0; ky < f.k; ky++) {
      const from = (i*high + y*f.stride+ky)*wide + c*f.stride;
      for (let kx = 0; kx < f.k; kx++) around[to++] = v[from+kx];
    }
    multiplied(around, n, f, out, y*w, w, h*w);
  }
  return {c: f.no, h, w, v: out};
}

// One row of all channels, four filters and two pixels at a time: the sums stay in the processor's registers
function multiplied(around, n, {no, w: filters, bias}, out, row, w, plane) {
  for (let o = 0; o < no; o += 4) for (let c = 0; c < w; c += 2) {
    let a = bias[o], b = bias[o+1], d = bias[o+2], e = bias[o+3], a2 = a, b2 = b, d2 = d, e2 = e;
    for (let i = c*n, end = i+n, k = o*n; i < end; i++, k += 4) {
      const u = around[i], u2 = around[i+n], p = filters[k], q = filters[k+1], r = filters[k+2], s = filters[k+3];
      a += u*p; b += u*q; d += u*r; e += u*s;
      a2 += u2*p; b2 += u2*q; d2 += u2*r; e2 += u2*s;
    }
    const to = o*plane + row + c;
    out[to] = a; out[to+plane] = b; out[to+2*plane] = d; out[to+3*plane] = e;
    if (c+1 === w) continue;
    out[to+1] = a2; out[to+plane+1] = b2; out[to+2*plane+1] = d2; out[to+3*plane+1] = e2;
  }
}

const positive = x => ({...x, v: x.v.map(u => u > 0 ? u : 0)});
const added = (x, y) => ({...x, v: x.v.map((u, i) => u + y.v[i])});

function halved({c, h, w, v}) {   // means of 2 × 2
  const out = new Float64Array(c*h*w/4);
  for (let y = 0, to = 0; y < c*h; y += 2) for (let x = 0; x < w; x += 2, to++) {
    const i = y*w+x;
    out[to] = (v[i] + v[i+1] + v[i+w] + v[i+w+1])/4;
  }
  return {c, h: h/2, w: w/2, v: out};
}

function asMap(g, size) {   // grey levels, standardised as the networks take them
  return {c: 1, h: size, w: size, v: Float64Array.from(g, u => (u/255-FACTS.mean)/FACTS.std)};
}

function throughBlock(x, b) {
  const middle = positive(convolved(x, b.first)), main = convolved(middle, b.second);
  const aside = b.skip ? convolved(halved(x), b.skip) : x;
  return {middle, out: positive(added(main, aside))};
}

function forward(net, g, size) {   // the stem's map and the blocks' maps
  const stem = positive(convolved(asMap(g, size), net.stem)), steps = [];
  for (const b of net.blocks) steps.push(throughBlock(steps.length ? steps.at(-1).out : stem, b));
  return {stem, steps};
}

function logit(net, {steps}) {
  const {c, h, w, v} = steps.at(-1).out;
  let z = net.bias[0];
  for (let i = 0; i < c; i++) z += net.weight[i]*v.subarray(i*h*w, (i+1)*h*w).reduce((a, b) => a+b)/(h*w);
  return z;
}

// ---- backwards, for the heat map
function backFilter(f) {   // the filter that takes a gradient through a convolution
  const w = new Float64Array(f.plain.length), kk = f.k*f.k;
  for (let o = 0; o < f.no; o++) for (let i = 0; i < f.ni; i++) for (let k = 0; k < kk; k++)
    w[(i*f.no+o)*kk + kk-1-k] = f.plain[(o*f.ni+i)*kk+k];
  return grouped({no: f.ni, ni: f.no, k: f.k, stride: 1, bias: new Float64Array(f.ni)}, w);
}
const backwards = (g, f) => convolved(g, f.back ??= backFilter(f));
const where = (g, x) => ({...g, v: g.v.map((u, i) => x.v[i] > 0 ? u : 0)});

function spread({c, h, w, v}, all) {   // twice the side: a value stands once among zeros, or as a quarter in all four
  const out = new Float64Array(4*c*h*w);
  v.forEach((u, i) => {
    const to = Math.floor(i/w)*4*w + i%w*2;
    if (all) out[to] = out[to+1] = out[to+2*w] = out[to+2*w+1] = u/4;
    else out[to] = u;
  });
  return {c, h: 2*h, w: 2*w, v: out};
}

function backThrough(g, b, step) {   // from the gradient at a block's output to that at its input
  g = where(g, step.out);
  const middle = where(backwards(g, b.second), step.middle);
  const main = backwards(b.step > 1 ? spread(middle) : middle, b.first);
  return added(main, b.skip ? spread(backwards(g, b.skip), true) : g);
}

function gradients(net, {steps}, first) {   // of the logit, at the outputs of all blocks from `first` on
  const {c, h, w} = steps.at(-1).out, all = [];
  let g = {c, h, w, v: Float64Array.from({length: c*h*w}, (_, i) => net.weight[Math.floor(i/(h*w))]/(h*w))};
  for (let i = steps.length-1; i >= first; i--) {
    all[i] = g;
    if (i > first) g = backThrough(g, net.blocks[i], steps[i]);
  }
  return all;
}

function enlarged(v, from, to) {   // bilinear, as OpenCV does it
  const taps = Array.from({length: to}, (_, i) => {
    const at = (i+.5)*from/to - .5, first = Math.min(from-1, Math.max(0, Math.floor(at)));
    return [first, Math.min(first+1, from-1), at < 0 || first === from-1 ? 0 : at-first];
  });
  return taps.flatMap(([y, below, t]) => taps.map(([x, right, s]) => {
    const upper = v[y*from+x]*(1-s) + v[y*from+right]*s, lower = v[below*from+x]*(1-s) + v[below*from+right]*s;
    return upper*(1-t) + lower*t;
  }));
}

function scaled(v) {   // from 0 to 1
  const least = v.reduce((a, b) => Math.min(a, b)), most = v.reduce((a, b) => Math.max(a, b)) - least;
  return v.map(u => (u-least)/(1e-7+most));
}

function layerCam(net, g, size, layers) {   // LayerCAM (Jiang et al., 2021), the mean over blocks
  const run = forward(net, g, size), slopes = gradients(net, run, layers[0]);
  const maps = layers.map(i => {
    const {c, h, w, v} = run.steps[i].out, cam = new Float64Array(h*w);
    slopes[i].v.forEach((u, j) => { if (u > 0) cam[j%(h*w)] += u*v[j]; });
    return enlarged(scaled(cam), h, size);
  });
  return scaled(maps[0].map((_, i) => maps.reduce((sum, m) => sum+m[i], 0)/maps.length));
}

function heatmap(net, g, size, {layers, step}) {   // the mean over four positions of the network's grid
  const heat = new Float64Array(size*size);
  for (const [i, j] of [[step, step], [0, step], [step, 0], [0, 0]]) {
    const at = (y, x) => Math.max(0, y+i-step)*size + Math.max(0, x+j-step);
    const moved = g.map((_, k) => g[at(Math.floor(k/size), k%size)]), map = layerCam(net, moved, size, layers);
    for (let y = 0; y < size; y++) for (let x = 0; x < size; x++)
      heat[y*size+x] += map[Math.min(y+step-i, size-1)*size + Math.min(x+step-j, size-1)];
  }
  const most = heat.reduce((a, b) => Math.max(a, b));
  return heat.map(u => u/Math.max(most, 1e-12));
}
