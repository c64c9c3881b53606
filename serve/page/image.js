// An image before it is sent: scaled where it is large, as a data URI.

export const LONGEST_SIDE = 2048; // pixels
const LARGEST_FILE = 8_000_000; // bytes; a larger one is encoded again

/** {blob, shown, note}: what to send, whether the browser can show it, and what was done to it, in words. */
export async function prepareImage(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    return { blob: file, shown: false, note: "This browser cannot show the image. It is sent as it is." };
  }
  try {
    const { width, height } = bitmap;
    const scale = Math.min(1, LONGEST_SIDE / Math.max(width, height));
    if (scale === 1 && file.size <= LARGEST_FILE) {
      return { blob: file, shown: true, note: `${width} × ${height} pixels` };
    }
    const [w, h] = [width, height].map((side) => Math.max(1, Math.round(side * scale)));
    const note =
      scale < 1 ? `Scaled from ${width} × ${height} to ${w} × ${h} pixels` : `Compressed, ${w} × ${h} pixels`;
    return { blob: await encode(bitmap, w, h), shown: true, note };
  } finally {
    bitmap.close();
  }
}

async function encode(bitmap, width, height) {
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d");
  context.fillStyle = "#fff"; // JPEG has no transparency
  context.fillRect(0, 0, width, height);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, width, height);
  return canvas.convertToBlob({ type: "image/jpeg", quality: 0.92 });
}

export function asDataUri(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
}
