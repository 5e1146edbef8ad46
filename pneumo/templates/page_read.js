// A file → grey levels and doubts, exactly as `pneumo.image` reads PNG and JPEG. What cannot be exact is refused.
class Refusal extends Error {}
const COMMAND = "the command reads it: pneumo predict FILE";

const text = (bytes, from, to) => String.fromCharCode(...bytes.subarray(from, to));
const rint = v => Math.floor(v) + (v % 1 > .5 || (v % 1 === .5 && Math.floor(v) % 2 === 1));   // to even, as NumPy does

// The EXIF orientation, 1 to 8: from a TIFF header, or from XMP
function orientationOf(tiff) {
  const view = new DataView(tiff.buffer, tiff.byteOffset, tiff.byteLength);
  const little = view.getUint16(0) === 0x4949, start = view.getUint32(4, little);
  for (let n = view.getUint16(start, little), at = start+2; n > 0; n--, at += 12) {
    if (view.getUint16(at, little) !== 274) continue;
    return view.getUint16(at+2, little) === 4 ? view.getUint32(at+8, little) : view.getUint16(at+8, little);
  }
}
const orientationInXmp = bytes => +(/tiff:Orientation(?:="|>)(\d)/.exec(new TextDecoder().decode(bytes)) || [])[1];

// One channel of an image, turned or mirrored by its orientation
function turned(plane, w, h, orientation) {
  const swap = orientation > 4, up = [3, 4, 6, 7].includes(orientation), left = [2, 3, 7, 8].includes(orientation);
  const wide = swap ? h : w, high = swap ? w : h, out = new plane.constructor(w*h);
  for (let y = 0, to = 0; y < high; y++) for (let x = 0; x < wide; x++) {
    const row = swap ? x : y, col = swap ? y : x;
    out[to++] = plane[(up ? h-1-row : row)*w + (left ? w-1-col : col)];
  }
  return out;
}

// ---- PNG is decoded here: a browser would cut 16 bits to 8 and mix transparency into the levels
const CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4};   // grey, colours, palette, grey and alpha, colours and alpha

function* pngChunks(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  for (let at = 8, n; at+12 <= bytes.length; at += 12+n) {
    n = view.getUint32(at);
    yield [text(bytes, at+4, at+8), bytes.subarray(at+8, at+8+n)];
  }
}

async function inflated(parts) {
  const stream = new Blob(parts).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function paeth(a, b, c) {
  const pa = Math.abs(b-c), pb = Math.abs(a-c), pc = Math.abs(a+b-2*c);
  return pa <= pb && pa <= pc ? a : pb <= pc ? b : c;
}

function unfiltered(raw, row, h, step) {   // `row` bytes a line, `step` bytes a pixel
  const out = new Uint8Array(row*h);
  const predicted = [() => 0, a => a, (a, b) => b, (a, b) => (a+b) >> 1, paeth];
  for (let y = 0, to = 0; y < h; y++) {
    const predict = predicted[raw[y*(row+1)]];
    for (let i = 0; i < row; i++, to++) {
      const a = i < step ? 0 : out[to-step], b = y ? out[to-row] : 0, c = i < step || !y ? 0 : out[to-row-step];
      out[to] = raw[y*(row+1)+1+i] + predict(a, b, c);
    }
  }
  return out;
}

function unpacked(bytes, w, h, depth, channels) {   // one array of samples per channel
  const row = Math.ceil(w*depth*channels/8), planes = [];
  for (let c = 0; c < channels; c++) {
    const plane = depth === 16 ? new Uint16Array(w*h) : new Uint8Array(w*h);
    for (let y = 0, to = 0; y < h; y++) for (let x = 0; x < w; x++, to++) {
      const at = x*channels+c, bit = at*depth, byte = y*row + (bit >> 3);
      if (depth === 16) plane[to] = bytes[byte]*256 + bytes[byte+1];
      else plane[to] = (bytes[byte] >> (8 - depth - bit%8)) & (2**depth-1);
    }
    planes.push(plane);
  }
  return planes;
}

async function readPng(bytes) {
  const chunks = [...pngChunks(bytes)], named = Object.fromEntries(chunks), data = [];
  const view = new DataView(bytes.buffer, bytes.byteOffset), [depth, kind, , , interlaced] = bytes.subarray(24, 29);
  const w = view.getUint32(16), h = view.getUint32(20), channels = CHANNELS[kind];
  checkSize(w, h);
  if (!named.IEND) throw new Refusal("this PNG is damaged or cut off");
  if (interlaced || named.tRNS || named.acTL) throw new Refusal(`this kind of PNG is not read here; ${COMMAND}`);
  let orientation = named.eXIf && orientationOf(named.eXIf);
  for (const [name, chunk] of chunks) {
    if (name === "IDAT") data.push(chunk);
    if (/tEXt|zTXt|iTXt/.test(name) && text(chunk, 0, 21) === "Raw profile type exif")
      throw new Refusal(`this PNG keeps its orientation in an old way; ${COMMAND}`);
    if (name === "iTXt") orientation ??= orientationInXmp(chunk) || undefined;
  }
  const row = Math.ceil(w*depth*channels/8), raw = await inflated(data);
  if (raw.length < (row+1)*h) throw new Refusal("this PNG is damaged or cut off");
  let planes = unpacked(unfiltered(raw, row, h, Math.max(1, depth*channels >> 3)), w, h, depth, channels);
  const transparent = channels%2 === 0 && planes.pop().some(a => (depth === 16 ? a >> 8 : a) < 255);
  if (kind === 3) planes = [0, 1, 2].map(c => planes[0].map(i => named.PLTE[3*i+c] ?? 0));
  else if (depth < 8) planes[0].forEach((v, i, all) => { all[i] = v*255/(2**depth-1); });
  const gamma = named.gAMA && new DataView(named.gAMA.buffer, named.gAMA.byteOffset).getUint32(0)/1e5;
  const doubts = [];
  if (transparent) doubts.push("parts of the image are transparent; transparency was left out");
  if (gamma && Math.abs(gamma-.45455) > .05 && !named.sRGB)
    doubts.push("the file asks for another gamma than screens have; it was not applied");
  return {w, h, planes, orientation, doubts};
}

// ---- JPEG goes through the browser's decoder, without the segments that would make it turn or recolour the image
function jpegSegments(bytes) {
  const found = {kept: [bytes.subarray(0, 2)]};
  for (let at = 2, n; bytes[at] === 0xff; at += n) {
    const marker = bytes[at+1];
    if (marker === 0xff) { n = 1; continue; }
    n = 2 + bytes[at+2]*256 + bytes[at+3];
    const body = bytes.subarray(at+4, at+n);
    if (marker === 0xda) return {...found, kept: [...found.kept, bytes.subarray(at)], scan: bytes.subarray(at)};
    if (marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker))
      Object.assign(found, {marker, bits: body[0], h: body[1]*256+body[2], w: body[3]*256+body[4], channels: body[5]});
    if (marker === 0xe1 && text(body, 0, 6) === "Exif\0\0") found.orientation ??= orientationOf(body.slice(6));
    if (marker === 0xe1 && text(body, 0, 4) === "http") found.xmp ??= orientationInXmp(body) || undefined;
    const application = marker > 0xe0 && marker <= 0xef && marker !== 0xee;   // 0xee says how colours are coded
    const foreign = application || marker === 0xfe;
    if (!foreign) found.kept.push(bytes.subarray(at, at+n));
  }
  throw new Refusal("this JPEG is damaged or cut off");
}

const isComplete = scan => scan.some((v, i) => v === 0xff && scan[i+1] === 0xd9);   // is its end there?

async function readJpeg(bytes) {
  const {w, h, channels, marker, bits, kept, scan, orientation, xmp} = jpegSegments(bytes);
  if (marker > 0xc2 || bits !== 8 || ![1, 3].includes(channels))
    throw new Refusal(`this kind of JPEG is not read here; ${COMMAND}`);
  checkSize(w, h);
  if (!isComplete(scan)) throw new Refusal("this JPEG is damaged or cut off");
  const bitmap = await createImageBitmap(new Blob(kept, {type: "image/jpeg"}));
  const planes = Array.from({length: channels}, () => new Uint8Array(w*h));
  const canvas = new OffscreenCanvas(w, Math.min(h, Math.ceil(4e6/w)));   // in strips: a phone's canvas is small
  const pen = canvas.getContext("2d", {willReadFrequently: true});
  for (let top = 0; top < h; top += canvas.height) {
    pen.drawImage(bitmap, 0, -top);
    const rows = Math.min(canvas.height, h-top), rgba = pen.getImageData(0, 0, w, rows).data;
    planes.forEach((plane, c) => { for (let i = 0; i < w*rows; i++) plane[top*w+i] = rgba[4*i+c]; });
  }
  return {w, h, planes, orientation: orientation ?? xmp, doubts: []};
}

// ---- levels, whatever the format
function checkSize(w, h) {
  const tooMany = "are more than a radiograph has; save it with fewer than 50 million";
  if (w*h > 5e7) throw new Refusal(`${w} × ${h} pixels ${tooMany}`);
  if (Math.min(w, h) < 8) throw new Refusal(`${w}×${h} pixels is too small for a radiograph`);
}

function isColoured({w, h, planes}) {   // by 64 × 64 samples, at the places where Pillow takes the nearest pixel
  if (planes.length < 3) return false;
  const grid = n => {
    let v = n/128;
    return Array.from({length: 64}, () => { const at = Math.floor(v); v += n/64; return at; });
  };
  let sum = 0;
  for (const y of grid(h)) for (const x of grid(w)) {
    const colour = planes.map(p => p[y*w+x]/(p instanceof Uint16Array ? 257 : 1));
    sum += Math.max(...colour)-Math.min(...colour);
  }
  return sum/4096 > 6;
}

function luminance([r, g, b]) {   // ITU-R 601, in Pillow's fixed point
  if (!g) return r;
  if (r instanceof Uint8Array) return r.map((v, i) => (v*19595 + g[i]*38470 + b[i]*7471 + 32768) >> 16);
  if (r.every((v, i) => v === g[i] && v === b[i])) return r;
  throw new Refusal(`colours of 16 bits are not read here; ${COMMAND}`);
}

function mapped(levels, low, high) {   // from black to white
  const table = new Uint8Array(65536), span = Math.max(high-low, 1e-12);
  for (let v = 0; v < 65536; v++) table[v] = rint(Math.min(1, Math.max(0, (v-low)/span))*255);
  return Uint8Array.from(levels, v => table[v]);
}

function quantile(sorted, q) {
  const last = sorted.length-1, at = q*last, i = Math.floor(at), t = at-i;
  const a = sorted[i], b = sorted[Math.min(i+1, last)];
  return t < .5 ? a + (b-a)*t : b - (b-a)*(1-t);
}

function greyRange(levels, w, h) {   // the darkest and the brightest level that is no outlier
  const places = n => {   // the middle four fifths of a side, at most some 400 positions of it
    const edge = Math.floor(n/10), step = Math.max(1, Math.floor(n/500));
    return Array.from({length: Math.ceil((n-2*edge)/step)}, (_, i) => edge + i*step);
  };
  const columns = places(w), centre = Float64Array.from(places(h).flatMap(y => columns.map(x => levels[y*w+x]))).sort();
  const low = quantile(centre, .02), high = quantile(centre, .98), spread = high-low;
  let least = Infinity, most = -Infinity;
  for (const v of levels) {
    if (v < low-.5*spread || v > high+.25*spread) continue;
    least = Math.min(least, v);
    most = Math.max(most, v);
  }
  return [least, most];
}

function greyOf16(levels, w, h) {   // 16 bits: stretched from 8, or under a range chosen from the pixels
  const top = levels.reduce((a, b) => Math.max(a, b), 0);
  const step = top < 256 ? 1 : [257, 256].find(s => levels.every(v => v%s === 0));
  if (step) return {g: mapped(levels, 0, 255*step), others: []};
  const [low, high] = greyRange(levels, w, h), room = high-low;
  const nearby = [[.1, .1], [-.05, -.05], [.1, -.05], [-.05, .1]];   // ranges that are wider or narrower
  const others = nearby.map(([a, b]) => mapped(levels, low-a*room, high+b*room));
  const note = "the file does not say which levels are black and white; the range was chosen from its pixels";
  return {g: mapped(levels, low, high), others, note};
}

// ---- borders, contrast, doubts
function edges({w, h, g}, isPlain) {   // what is left without the plain rows and columns at the edges
  const ends = (n, m, far, near) => {   // of n lines with m pixels; how far apart lines and pixels lie
    let first = n, last = -1;
    for (let i = 0; i < n; i++) {
      let low = 255, high = 0, sum = 0, squares = 0;
      for (let j = 0; j < m; j++) {
        const v = g[i*far + j*near];
        if (v < low) low = v;
        if (v > high) high = v;
        sum += v;
        squares += v*v;
      }
      if (!isPlain(low, high, squares/m - (sum/m)**2)) { first = Math.min(first, i); last = i; }
    }
    return last < 0 ? [0, n] : [first, last+1];
  };
  const [top, bottom] = ends(h, w, w, 1), [left, right] = ends(w, h, 1, w);
  return {top, bottom, left, right};
}
const isBlackOrWhite = (low, high) => high-low <= 10 && (high <= 16 || low >= 239);
const isEven = (low, high, variance) => variance < 144;

function cut({w, g}, {top, bottom, left, right}) {
  const out = {w: right-left, h: bottom-top, g: new Uint8Array((right-left)*(bottom-top))};
  for (let y = 0; y < out.h; y++) out.g.set(g.subarray((top+y)*w+left, (top+y)*w+right), y*out.w);
  return out;
}

function lost({w, h}, k) {   // the share of the centred square that the border takes
  const short = Math.min(w, h);
  const along = (side, a, b) => (Math.max(a-(side-short)/2, 0) + Math.max((side+short)/2-b, 0))/short;
  if (Math.min(k.right-k.left, k.bottom-k.top) < 28) return 0;
  return Math.max(along(h, k.top, k.bottom), along(w, k.left, k.right));
}

function withoutBorder(film) {
  if (Math.min(film.w, film.h) <= 28) return film;
  const kept = edges(film, isBlackOrWhite), share = lost(film, kept);
  if (share > 0 && share < .05) return {...film, others: [...film.others, cut(film, kept)]};
  if (share) film = {...film, ...cut(film, kept), notes: [...film.notes, "a plain border was cut away"],
                     others: film.others.map(o => cut(o, kept))};
  const inner = edges(film, isEven);
  return lost(film, inner) > .02 ? {...film, others: [...film.others, cut(film, inner)]} : film;
}

function histogram(g) {
  const counts = new Float64Array(256);
  for (const v of g) counts[v]++;
  return counts.map(n => n/g.length);
}

function withContrast(film) {
  const {w, h, g} = film, share = histogram(g);
  let sum = 0, count = 0, low = -1, high = -1;
  for (let v = 0; v < 256; v++) {
    count += Math.round(share[v]*g.length);
    sum = count/g.length;
    if (low < 0 && sum >= .01) low = v;
    if (high < 0 && sum >= .99) high = v;
  }
  if (high <= low || high-low >= 100 || (w === 28 && h === 28)) return film;
  return {...film, others: [...film.others, {w, h, g: mapped(g, low, high)}]};
}

function pixelDoubts({w, h, g}) {
  const share = histogram(g), sum = f => share.reduce((all, s, v) => all + s*f(v), 0);
  const mean = sum(v => v), spread = Math.sqrt(sum(v => (v-mean)**2)), levels = share.filter(s => s > 0).length;
  const black = sum(v => +(v < 3)), white = sum(v => +(v > 252)), percent = v => `${(v*100).toFixed(0)}%`;
  const short = Math.min(w, h);
  return [
    [spread < (w === 28 && h === 28 ? 5 : 8), "almost uniform; this does not look like a radiograph"],
    [levels < 32, `only ${levels} grey levels are left`],
    [black > .65, `${percent(black)} of the picture is plain black`],
    [white > .25, `${percent(white)} of the picture is plain white`],
    [Math.max(h/w, w/h) > 3, "its shape is that of a strip, unlike a chest film"],
    [short < 28, `only ${short} pixels across, fewer than the network sees`],
  ].filter(([isSo]) => isSo).map(([, words]) => words);
}

const PNG = "\x89PNG\r\n\x1a\n", JPEG = "\xff\xd8\xff";

async function decoded(bytes) {
  const head = text(bytes, 0, 8), dicom = text(bytes, 128, 132) === "DICM";
  if (dicom) throw new Refusal(`a DICOM file; ${COMMAND}`);
  if (head !== PNG && !head.startsWith(JPEG))
    throw new Refusal("neither PNG nor JPEG; the command reads other formats: pneumo predict FILE");
  try { return await (head === PNG ? readPng : readJpeg)(bytes); }
  catch (e) { throw e instanceof Refusal ? e : new Refusal(`the image is damaged or cut off (${e.message})`); }
}

// A film: width, height and grey levels, notes and warnings in words, other possible readings, the file's own shape
async function readFilm(bytes) {
  let {w, h, planes, orientation, doubts} = await decoded(bytes);
  if (orientation > 1 && orientation < 9) planes = planes.map(p => turned(p, w, h, orientation));
  if (orientation > 4 && orientation < 9) [w, h] = [h, w];
  const deep = planes[0] instanceof Uint16Array, levels = luminance(planes);
  const {g, others, note} = deep ? greyOf16(levels, w, h) : {g: levels, others: []};
  const colour = isColoured({w, h, planes}) ? ["a colour image; this does not look like a radiograph"] : [];
  const warnings = [...colour, ...doubts];
  const film = {w, h, g, shape: [h, w], notes: note ? [note] : [], warnings, others: others.map(o => ({w, h, g: o}))};
  const read = withContrast(withoutBorder(film));
  return {...read, warnings: [...read.warnings, ...pixelDoubts(read)]};
}
