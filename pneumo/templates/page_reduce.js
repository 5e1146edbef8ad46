// What a network sees of a film: `Radiograph.reduced`, pixel for pixel.

function centredSquare(im) {
  const side = Math.min(im.w, im.h), left = rint((im.w-side)/2), top = rint((im.h-side)/2);
  return cut(im, {left, top, right: left+side, bottom: top+side});
}

// The weights of Pillow's bilinear filter in fixed point of 22 bits: for each new pixel where they begin, and they
function filterWeights(from, to) {
  const scale = from/to, reach = Math.max(scale, 1);
  return Array.from({length: to}, (_, i) => {
    const centre = (i+.5)*scale, first = Math.max(0, Math.trunc(centre-reach+.5));
    const last = Math.min(from, Math.trunc(centre+reach+.5));
    const w = Array.from({length: last-first}, (_, j) => Math.max(0, 1 - Math.abs((j+first-centre+.5)/reach)));
    const sum = w.reduce((a, b) => a+b);
    return [first, w.map(v => Math.trunc(.5 + v/sum*4194304))];
  });
}

function narrowed({w, h, g}, to) {   // in width, the result lying on its side, so that twice is in width and height
  const out = {w: h, h: to, g: new Uint8ClampedArray(h*to)};
  filterWeights(w, to).forEach(([first, weights], x) => {
    for (let y = 0; y < h; y++) {
      let sum = 2097152;
      for (let i = 0; i < weights.length; i++) sum += g[y*w+first+i]*weights[i];
      out.g[x*h+y] = sum >> 22;
    }
  });
  return out;
}

const resized = (square, size) => square.w === size ? square : narrowed(narrowed(square, size), size);

// libjpeg's integer cosine transform as one matrix of numbers of 13 bits; the second half of a row mirrors the first
const COSINES = [
  [8192, 8192, 8192, 8192], [11363, 9633, 6437, 2260], [10703, 4433, -4433, -10703], [9633, -2259, -11362, -6436],
  [8192, -8192, -8192, 8192], [6437, -11362, 2261, 9633], [4433, -10704, 10704, -4433], [2260, -6436, 9633, -11363],
].map((row, k) => [...row, ...[...row].reverse().map(v => k%2 ? -v : v)]);

// The transform of 8 rows of 8, or its inverse, in fixed point; the result is transposed
function cosines(block, shift, inverse) {
  const out = new Int32Array(64);
  for (let y = 0; y < 8; y++) for (let k = 0; k < 8; k++) {
    let sum = 1 << (shift-1);
    for (let n = 0; n < 8; n++) sum += block[8*y+n]*(inverse ? COSINES[n][k] : COSINES[k][n]);
    out[8*k+y] = sum >> shift;
  }
  return out;
}

const transposed = block => block.map((_, i) => block[i%8*8 + (i >> 3)]);

function jpegBlock(pixels) {   // 64 grey levels as a JPEG of quality 75 gives them back
  const found = cosines(cosines(pixels.map(v => v-128), 11), 15);   // transposed twice: upright again
  const kept = found.map((v, i) => {
    const step = FACTS.quantization[i]*8;
    return Math.sign(v)*Math.floor((Math.abs(v) + step/2)/step)*FACTS.quantization[i];
  });
  const back = cosines(cosines(transposed(kept), 11, true), 18, true);   // columns first, as libjpeg does it
  return transposed(back).map(v => Math.min(255, Math.max(0, v+128)));
}

function jpegStep(g, size) {   // block by block; the last rows and columns are repeated to fill theirs
  const out = new Uint8Array(size*size), at = (y, x) => Math.min(y, size-1)*size + Math.min(x, size-1);
  for (let top = 0; top < size; top += 8) for (let left = 0; left < size; left += 8) {
    const places = Array.from({length: 64}, (_, i) => at(top + (i >> 3), left + i%8));
    jpegBlock(Int32Array.from(places, p => g[p])).forEach((v, i) => {
      if (top + (i >> 3) < size && left + i%8 < size) out[places[i]] = v;
    });
  }
  return out;
}

function reduced(film, size) {
  if (film.w === size && film.h === size) return film.g;
  const {g} = resized(centredSquare(film), size);
  return size === 28 ? jpegStep(g, 28) : g;
}
