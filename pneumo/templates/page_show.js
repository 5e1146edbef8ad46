// What a visitor sees. Everything above computes; nothing below does.
const $ = id => document.getElementById(id);
const bytesOf = base64 => Uint8Array.from(atob(base64), c => c.charCodeAt(0));
const pause = () => new Promise(go => requestAnimationFrame(() => setTimeout(go)));   // the screen is drawn meanwhile

function written(p) {   // never as certain
  return p < .001 ? "under 0.001" : p > .999 ? "over 0.999" : p.toFixed(3);
}
const between = (low, high) => written(low) === written(high) ? written(low) : `${written(low)}–${written(high)}`;

function greyCanvas({w, h, g}) {
  const canvas = new OffscreenCanvas(w, h), pixels = new ImageData(w, h);
  g.forEach((v, i) => pixels.data.set([v, v, v, 255], 4*i));
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  return canvas;
}

function heatCanvas(heat, size) {
  const canvas = new OffscreenCanvas(size, size), pixels = new ImageData(size, size), last = FACTS.colours.length-1;
  heat.forEach((v, i) => pixels.data.set([...FACTS.colours[Math.round(v*last)], Math.round(140*v)], 4*i));
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  return canvas;
}

function drawFilm(film, heat, size) {   // the film; over it the map, in a frame around what the network saw
  const canvas = $("film"), pen = canvas.getContext("2d");
  const scale = Math.max(420/Math.min(film.w, film.h), Math.min(1, 1024/Math.max(film.w, film.h)));
  const w = canvas.width = Math.round(film.w*scale), h = canvas.height = Math.round(film.h*scale);
  const side = Math.min(w, h), left = (w-side)/2, top = (h-side)/2, picture = greyCanvas(film);
  pen.imageSmoothingQuality = "high";
  pen.drawImage(picture, 0, 0, w, h);
  if (!heat) return;
  pen.fillStyle = "#0009";   // what the network did not see is darkened
  if (w > h) [0, left+side].forEach(x => pen.fillRect(x, 0, left, h));
  if (h > w) [0, top+side].forEach(y => pen.fillRect(0, y, w, top));
  pen.drawImage(heatCanvas(heat, size), left, top, side, side);
  if (w === h) return;
  pen.strokeStyle = "#f2b01e";
  pen.lineWidth = 2;
  pen.strokeRect(left+1, top+1, side-2, side-2);
}

function drawSeen(x, size) {
  const canvas = $("seen");
  canvas.width = canvas.height = size;
  canvas.getContext("2d").drawImage(greyCanvas({w: size, h: size, g: x}), 0, 0);
}

function showReasons(a) {
  const always = "the answer is pneumonia, and a person should read every film with that answer";
  const reasons = a.label === "pneumonia" ? [...a.reasons, always] : a.reasons;
  $("look").hidden = !reasons.length;
  $("fine").hidden = reasons.length > 0;
  const line = words => Object.assign(document.createElement("li"), {textContent: words});
  $("reasons").replaceChildren(...reasons.map(line));
  return reasons.length;
}

function setInWords(set, allowed) {
  if (set.length > 1) return "Neither normal nor pneumonia can be ruled out.";
  return set[0] === "pneumonia" ? `Of 100 normal films, at most ${allowed} look as suspicious as this one.`
                                : `Of 100 films with pneumonia, at most ${allowed} look as normal as this one.`;
}

function likenessInWords({unusual, strange}) {
  const trainedOn = "the radiographs that the network was trained on";
  if (!strange) return `This film resembles ${trainedOn}.`;
  const why = unusual ? `This film is unlike ${trainedOn}` : `As for the film, ${strange}`;
  return `${why}. The answer may mean nothing.`;
}

function showAnswer(a, film) {
  const percent = v => `${(100*v).toFixed(1)}%`;
  $("label").textContent = a.label;
  $("label").className = `big ${a.label}`;
  $("probability").textContent = written(a.probability);
  $("interval").textContent = between(a.low, a.high);
  $("track").className = `track ${a.label}`;
  $("track").setAttribute("aria-label", `Probability ${written(a.probability)} of 0 to 1; called from 0.5 on`);
  $("band").style.left = percent(a.low);
  $("band").style.right = percent(1-a.high);
  $("dot").style.left = percent(a.probability);
  $("set").textContent = setInWords(a.prediction_set, Math.round(100 - 100*FACTS.records[a.size].level));
  $("ood").textContent = a.ood.toFixed(2);
  $("likeness").textContent = likenessInWords(a);
  $("likeness").className = a.strange ? "warn" : "";
  $("oodtrack").setAttribute("aria-label", `Score ${a.ood.toFixed(2)}; a typical training film has 0, the limit is 1`);
  $("ooddot").style.left = percent(Math.min(1, Math.max(0, a.ood)/2));
  $("rare").textContent = `${FACTS.population.rare[a.size]*1000} of 1000 training films`;
  const unseen = Math.round(100 - 100*Math.min(film.w, film.h)/Math.max(film.w, film.h));
  const square = `the film's centred square. It saw nothing of the rest, ${unseen} % of the film`;
  $("what").textContent = `${a.size} × ${a.size} pixels of ${unseen ? square : "the whole film"}.`;
  $("file").textContent = [`${film.shape[1]} × ${film.shape[0]} pixels in the file`, ...film.notes].join("; ");
}

let shown, turn = 0;   // the film on the screen; the file that was asked about last

async function ask(bytes, name) {
  const mine = ++turn;
  document.body.classList.add("busy");
  document.body.classList.remove("done");
  $("refused").hidden = true;
  $("said").textContent = `Reading ${name} …`;
  await pause();
  try {
    const film = await readFilm(bytes), start = performance.now(), a = assess(film);
    if (mine !== turn) return;
    drawSeen(a.x, a.size);
    drawFilm(film);
    showAnswer(a, film);
    $("name").textContent = name;
    $("result").hidden = false;
    document.body.classList.add("done");
    const look = showReasons(a) ? "A person should look at this film." : "";
    const chance = `probability ${written(a.probability)} (95 % interval ${between(a.low, a.high)})`;
    $("said").textContent = `${name}: ${a.label}, ${chance}. ${look}`;
    if ($("result").getBoundingClientRect().top > .6*innerHeight) $("result").scrollIntoView();   // on a phone
    await pause();
    const heat = heatmap(loaded(a.size), a.x, a.size, FACTS.explained[a.size]);
    if (mine !== turn) return;
    shown = {film, heat, size: a.size};
    $("time").textContent = `Answered here, in ${Math.round(performance.now()-start)} milliseconds.`;
    redraw();
  } catch (e) {
    if (mine === turn) refuse(e instanceof Refusal ? e.message : `this browser could not read it (${e.message})`, name);
  } finally { if (mine === turn) document.body.classList.remove("busy"); }
}

function refuse(why, name) {
  $("result").hidden = true;
  $("said").textContent = "";
  $("refused").textContent = `${name}: ${why}.`;
  $("refused").hidden = false;
}

const redraw = () => shown && drawFilm(shown.film, $("map").checked && shown.heat, shown.size);
const askFile = async file => file && ask(new Uint8Array(await file.arrayBuffer()), file.name);

async function checkBrowser() {   // some browsers decode JPEG another way, or blur what a page reads from its canvas
  const {planes} = await readJpeg(bytesOf(FACTS.check.jpeg)), wanted = bytesOf(FACTS.check.grey);
  return luminance(planes).every((v, i) => v === wanted[i]);
}

$("choose").addEventListener("change", async e => {
  await askFile(e.target.files[0]);
  e.target.value = "";   // the same file may be chosen again
});
$("map").addEventListener("change", redraw);
addEventListener("dragover", e => { e.preventDefault(); document.body.classList.add("over"); });
addEventListener("dragleave", e => { if (!e.relatedTarget) document.body.classList.remove("over"); });
addEventListener("drop", e => {
  e.preventDefault();
  document.body.classList.remove("over");
  askFile(e.dataTransfer.files[0]);
});
for (const button of document.querySelectorAll(".sample")) {
  const bytes = () => bytesOf(button.querySelector("img").src.split(",")[1]);
  button.addEventListener("click", () => ask(bytes(), button.dataset.name));
}
checkBrowser().catch(() => false).then(same => { $("differs").hidden = same; });
