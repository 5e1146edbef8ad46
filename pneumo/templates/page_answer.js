// What can be said of a film: `pneumo.population` and `pneumo.trust.assess`, step by step.

const dot = (a, b, at=0) => { let sum = 0; for (let i = 0; i < a.length; i++) sum += a[i]*b[at+i]; return sum; };
const toProba = z => .5*(1+Math.tanh(z/2));

// ---- population
function pooled({c, h, w, v}) {   // means over a grid of 4 × 4, as PyTorch lays it
  const ends = (n, i) => [Math.floor(i*n/4), Math.ceil((i+1)*n/4)], out = [];
  for (let ch = 0; ch < c; ch++) for (let i = 0; i < 16; i++) {
    const [top, bottom] = ends(h, i >> 2), [left, right] = ends(w, i%4);
    let sum = 0;
    for (let y = top; y < bottom; y++) for (let x = left; x < right; x++) sum += v[(ch*h+y)*w+x];
    out.push(sum/((bottom-top)*(right-left)));
  }
  return out;
}

function populationFeatures(net, g, size) {
  const {steps} = forward(net, g, size), found = [...pooled(steps[1].out), ...pooled(steps[3].out)].map(Math.sqrt);
  const out = Float64Array.from(net.offset, v => -v), k = out.length;
  found.forEach((u, i) => { for (let j = 0; j < k; j++) out[j] += u*net.basis[i*k+j]; });
  return out;
}

function distance(z, net, size) {   // from the training population: 0 is its median, 1 its limit
  const {centre, spread, typical, limit} = FACTS.population[size], d = z.map((v, i) => v-net[`mean${size}`][i]);
  const root = net[`root${size}`], along = new Float64Array(d.length);   // its lower triangle, row by row
  for (let i = 0, at = 0; i < d.length; i++) for (let j = 0; j <= i; j++, at++) along[j] += d[i]*root[at];
  const far = Math.log(Math.max(Math.hypot(...along), 1e-9));
  return ((far-centre)/spread + dot(d, net[`toward${size}`]) - typical)/(limit-typical);
}

function unitPattern(v) {   // mean 0, length 1
  const mean = v.reduce((a, b) => a+b)/v.length, length = Math.sqrt(v.reduce((a, b) => a + (b-mean)**2, 0));
  return v.map(u => (u-mean)/Math.max(length, 1e-6));
}

function coarsePattern(g, size) {   // means over boxes of a grid of 14 × 14; a pixel on an edge counts in part
  const boxes = Array.from({length: 14}, (_, i) => Float64Array.from({length: size}, (_, p) =>
    Math.max(0, Math.min((i+1)*size/14, p+1) - Math.max(i*size/14, p))*14/size));
  const inColumn = (box, x) => box.reduce((sum, b, y) => sum + b*g[y*size+x], 0);
  const rows = boxes.map(box => Float64Array.from({length: size}, (_, x) => inColumn(box, x)));
  return unitPattern(rows.flatMap(row => boxes.map(box => dot(box, row))));
}

function uncorrelated(g, size) {   // one minus the correlation with the nearest prototype
  const {images, typical, limit} = FACTS.population.prototypes;
  const bytes = Int8Array.from(atob(images), c => c.charCodeAt(0)), pattern = coarsePattern(g, size);
  let nearest = -1;
  for (let i = 0; i < bytes.length; i += 196)
    nearest = Math.max(nearest, dot(pattern, unitPattern([...bytes.subarray(i, i+196)])));
  return (1-nearest-typical)/(limit-typical);
}

function orientationState(z, net, size) {
  const states = net[`states${size}`], offset = net[`states${size}.offset`], n = offset.length;
  const odds = [...offset].map((o, s) => z.reduce((sum, v, i) => sum + v*states[i*n+s], o));
  return FACTS.states[odds.indexOf(Math.max(...odds))];
}

// ---- trust
function interval(record, z) {   // calibrated scores: itself, the lower and the upper end, 95 %
  const scores = record.maps.map(([slope, intercept]) => slope*z + intercept).sort((a, b) => a-b);
  const own = record.slope*z + record.intercept;
  return [own, Math.min(own, quantile(scores, .025)), Math.max(own, quantile(scores, .975))];
}

function predictionSet({scores, level}, z) {   // conformal, never empty
  const p = [
    (scores.normal.filter(s => s >= z).length+1)/(scores.normal.length+1),
    (scores.pneumonia.filter(s => s <= z).length+1)/(scores.pneumonia.length+1),
  ];
  const likelier = p[1] > p[0] ? 1 : 0;
  return ["normal", "pneumonia"].filter((_, i) => i === likelier || p[i] > 1-level+1e-12);
}

function doubt(record, label, set, score) {   // why the answer itself is in doubt
  if (set.length > 1) return `both classes are possible at ${Math.round(record.level*100)}% coverage`;
  if (set[0] !== label) return "the image alone points to the other class";
  const weak = Math.abs(score) < record.keep;
  return weak ? `not sure enough for an error of ${(record.risk*100).toFixed(1)}% at most` : "";
}

const networks = {};
const loaded = name => networks[name] ??= network(name);
const MOST = 27.6310211159;   // log-odds are cut off there
function rawScore(size, g) {
  const net = loaded(size);
  return Math.max(-MOST, Math.min(MOST, logit(net, forward(net, g, size))));
}

// The answer to a film, with the keys of `assess`; `x` is what the network saw
function assess(film) {
  const size = Math.max(FACTS.sizes[0], ...FACTS.sizes.filter(s => s <= Math.min(film.w, film.h)));
  const x = reduced(film, size), record = FACTS.records[size], z = rawScore(size, x);
  const [score, lower, upper] = interval(record, z), [probability, low, high] = [score, lower, upper].map(toProba);
  const label = probability >= .5 ? "pneumonia" : "normal", set = predictionSet(record, z);
  const population = loaded("population"), features = populationFeatures(population, x, size);
  const lies = FACTS.lies[orientationState(features, population, size)];
  const ood = Math.max(uncorrelated(x, size), distance(features, population, size));
  const others = film.others.map(o => toProba(record.slope*rawScore(size, reduced(o, size)) + record.intercept));
  const changes = others.some(q => (q >= .5) !== (probability >= .5) || Math.abs(q-probability) > .02);
  const strange = [ood > 1 ? "unlike the radiographs it was trained on" : "", lies].filter(Boolean).join("; ");
  const reasons = [
    ...film.warnings,
    changes ? "the file can be read another way, which changes the answer" : "",
    strange || doubt(record, label, set, score),
  ].filter(Boolean);
  return {x, size, probability, low, high, label, prediction_set: set, refer: reasons.length > 0,
          refer_reason: reasons.join("; "), ood, unusual: ood > 1, reasons, strange};
}
