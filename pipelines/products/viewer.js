"use strict";
const at = (id) => document.getElementById(id);
const layers = JSON.parse(at("layers").textContent);
const loaded = new Map(); // number of a layer -> the promise of its volume
const windows = new Map(); // "image" or "overlay", and the group of the layer -> [from, to]
const MOST_SAMPLES = 200000; // voxels that the first window is from
const view = new niivue.Niivue({
  isRadiologicalConvention: true, sagittalNoseLeft: true, isNearestInterpolation: true, dragAndDropEnabled: false,
  loadingText: "", logLevel: "error",
  backColor: [0, 0, 0, 1], crosshairColor: [0.35, 0.65, 1, 0.7], crosshairWidth: 0.25, crosshairWidthUnit: "percent",
  fontColor: [1, 0.8, 0.35, 1], fontMinPx: 16, show3Dcrosshair: true, multiplanarShowRender: 2,
});
let turn = 0;

function bytesOf(n) {
  const element = at(`volume-${n}`);
  const text = element.textContent;
  element.remove();
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text).buffer;
  const binary = atob(text), bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes.buffer;
}

function load(n) {
  if (!loaded.has(n)) loaded.set(n, read(n));
  return loaded.get(n);
}

async function read(n) {
  const layer = layers[n], buffer = layer.buffer ?? bytesOf(n);
  const volume = await niivue.NVImage.loadFromUrl({ url: layer.file, name: layer.file, buffer, colorbarVisible: false });
  layer.range = rangeOf(volume, layer.kind === "labels");
  return volume;
}

// From the lowest to the highest value of all frames, of images without the 0.5 % at either end; labels begin at 0.
function rangeOf({ img, hdr }, isLabels) {
  if (isLabels) return [0, Math.max(1, img.reduce((most, label) => Math.max(most, label), 0))];
  const step = Math.ceil(img.length / MOST_SAMPLES), seen = [];
  for (let i = 0; i < img.length; i += step) if (Number.isFinite(img[i])) seen.push(img[i] * hdr.scl_slope + hdr.scl_inter);
  const sorted = Float64Array.from(seen).sort();
  const [from, to] = [0.005, 0.995].map((share) => sorted[Math.round(share * (sorted.length - 1))] ?? 0);
  return [from, to > from ? to : from + 1];
}

function windowOf(which, n) {
  const key = `${which} ${layers[n].group || n}`;
  if (!windows.has(key)) windows.set(key, [...layers[n].range]);
  return windows.get(key);
}
const chosen = (id) => (at(id).value === "" ? null : Number(at(id).value));

// What the controls say, on the canvas.
async function show() {
  const mine = ++turn, image = chosen("image");
  if (image === null) return;
  for (const option of at("overlay").options) option.disabled = option.value === at("image").value;
  if (at("overlay").value === at("image").value) at("overlay").value = "";
  const overlay = chosen("overlay");
  const wanted = [await load(image), ...(overlay === null ? [] : [await load(overlay)])];
  if (mine !== turn) return; // another choice was made meanwhile
  if (view.volumes.length !== wanted.length || wanted.some((volume, i) => view.volumes[i] !== volume)) {
    for (const volume of [...view.volumes]) view.removeVolume(volume);
    for (const volume of wanted) view.addVolume(volume);
  }
  const frame = showFrame(image, wanted[0].nFrame4D - 1);
  wanted.forEach((volume, i) => {
    const n = i ? overlay : image, which = i ? "overlay" : "image", ends = windowOf(which, n);
    volume.frame4D = Math.min(frame, volume.nFrame4D - 1);
    volume.setColormap(layers[n].kind === "labels" ? "labels" : i ? "overlay" : "gray");
    volume.opacity = i ? Number(at("opacity").value) : 1;
    [volume.cal_min, volume.cal_max] = ends;
    showWindow(which, ends);
  });
  at("overlay-window").classList.toggle("none", overlay === null);
  view.setInterpolation(!at("smooth").checked || layers[overlay ?? image].kind === "labels");
  view.setSliceType(Number(at("view").value));
  view.updateGLVolume();
  view.createOnLocationChange();
  at("problem").textContent = "";
}

function showFrame(image, last) {
  const slider = at("frame"), { frames, unit } = layers[image];
  slider.max = last;
  slider.disabled = last === 0;
  const frame = Math.min(Number(slider.value), last);
  const facts = [`${frame + 1} of ${last + 1}`, frames[frame], unit && `in ${unit}`];
  at("when").textContent = facts.filter(Boolean).join(", ");
  return frame;
}

function showWindow(which, [from, to]) {
  const digits = (value) => String(Number(value.toPrecision(5)));
  at(`${which}-min`).value = digits(from);
  at(`${which}-max`).value = digits(to);
}

function setWindow(which) {
  const n = chosen(which), ends = [at(`${which}-min`), at(`${which}-max`)].map((input) => input.valueAsNumber);
  if (n !== null && ends.every(Number.isFinite) && ends[0] < ends[1]) windowOf(which, n).splice(0, 2, ...ends);
  draw();
}

function open(file) {
  const reader = new FileReader();
  reader.onload = () => {
    const layer = { file: file.name, title: file.name, frames: [], group: "", unit: "", kind: "image", buffer: reader.result };
    const n = layers.push(layer) - 1;
    for (const id of ["image", "overlay"]) at(id).add(new Option(file.name, n));
    at("image").value = n;
    draw();
  };
  reader.readAsArrayBuffer(file);
}

const draw = () => show().catch(failed);

function failed(error) {
  const why = String(error.message ?? error).replace(/\.+$/, "");
  at("problem").textContent = `Cannot be shown: ${why}. The NIfTI files lie beside this page. `;
}

async function start() {
  if (!document.createElement("canvas").getContext("webgl2")) throw new Error("this browser has no WebGL2");
  view.onLocationChange = ({ mm, values }) => {
    const [x, y, z] = [...mm].map((value) => value.toFixed(1)), voxels = values.map(({ value }) => Number(value.toPrecision(6)));
    at("position").textContent = `R ${x}, A ${y}, S ${z} mm: ${voxels.join(" and ")}`;
  };
  view.addColormap("overlay", { R: [60, 255, 255], G: [0, 110, 240], B: [0, 0, 150], A: [0, 180, 255], I: [0, 110, 255] });
  view.addColormap("labels", {
    R: [0, 70, 60, 255, 255], G: [0, 150, 220, 220, 80], B: [0, 255, 140, 60, 110], A: [0, 255, 255, 255, 255],
    I: [0, 1, 85, 170, 255],
  });
  await view.attachToCanvas(at("canvas"));
  for (const id of ["image", "frame", "overlay", "opacity", "view", "smooth"]) at(id).addEventListener("input", draw);
  for (const which of ["image", "overlay"])
    for (const end of ["min", "max"]) at(`${which}-${end}`).addEventListener("change", () => setWindow(which));
  at("reset").addEventListener("click", () => {
    windows.clear();
    draw();
  });
  at("file").addEventListener("change", () => at("file").files.length && open(at("file").files[0]));
  at("controls").addEventListener("submit", (event) => event.preventDefault());
  await draw();
}
start().catch(failed);
