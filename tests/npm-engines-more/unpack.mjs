// Unpacks the Chromium 65 of chrome-aws-lambda, which is packed with brotli, to bin/chromium.
import { createReadStream, createWriteStream } from "node:fs";
import { pipeline } from "node:stream/promises";
import { createBrotliDecompress } from "node:zlib";

const folder = new URL("node_modules/chrome-aws-lambda/bin/", import.meta.url);
await pipeline(
  createReadStream(new URL("chromium-65.0.3312.0.br", folder)),
  createBrotliDecompress(),
  createWriteStream(new URL("chromium", folder), { mode: 0o755 }),
);
