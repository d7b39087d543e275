// Where a photo lies on its stage: pure functions. A view is {scale, x, y}: a photo's pixel p is drawn at
// x + scale * p of the stage. Sizes are {width, height}.

const MOST = 16; // screen pixels for each pixel of the photo
const STEP = 1.25;

/** The whole photo, centred; a small one is enlarged, up to three times. */
export function fit(photo, stage) {
  const scale = Math.min(stage.width / photo.width, stage.height / photo.height, 3);
  return clamp({ scale, x: 0, y: 0 }, photo, stage);
}

/** No gap on a side where the photo is larger than the stage; centred where it is smaller. */
export function clamp(view, photo, stage) {
  const place = (offset, room, length) =>
    length <= room ? (room - length) / 2 : Math.min(0, Math.max(room - length, offset));
  return {
    scale: view.scale,
    x: place(view.x, stage.width, photo.width * view.scale),
    y: place(view.y, stage.height, photo.height * view.scale),
  };
}

/** Larger or smaller by `factor`; the point of the stage {x, y} keeps what it shows. */
export function zoom(view, factor, point, photo, stage) {
  const least = fit(photo, stage).scale;
  const scale = Math.min(Math.max(MOST, least), Math.max(least, view.scale * factor));
  const grown = scale / view.scale;
  const moved = { scale, x: point.x - (point.x - view.x) * grown, y: point.y - (point.y - view.y) * grown };
  return clamp(moved, photo, stage);
}

export function pan(view, dx, dy, photo, stage) {
  return clamp({ ...view, x: view.x + dx, y: view.y + dy }, photo, stage);
}

/** The box [x, y, width, height] of the photo in the middle, filling `share` of the stage. */
export function centre(box, share, photo, stage) {
  const whole = fit(photo, stage).scale;
  const wanted = share * Math.min(stage.width / box[2], stage.height / box[3]);
  const scale = Math.min(MOST, Math.max(whole, wanted));
  const x = stage.width / 2 - (box[0] + box[2] / 2) * scale;
  const y = stage.height / 2 - (box[1] + box[3] / 2) * scale;
  return clamp({ scale, x, y }, photo, stage);
}

export function isWhole(view, photo, stage) {
  return view.scale <= fit(photo, stage).scale * 1.001;
}

export { STEP };
