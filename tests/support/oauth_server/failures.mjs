// One failure that a test has ordered: before the work, instead of it, or after it.

import { setTimeout as sleep } from 'node:timers/promises';

const BLOCK = Buffer.alloc(1 << 16, 'a');

// Whether the request has been answered (or cut) here, so that nothing else happens to it.
export async function instead(failure, req, res) {
  if (failure.delayMs) await sleep(failure.delayMs);
  if (failure.dropBefore) {
    req.socket.destroy();
    return true;
  }
  const { status, error, body, html, hugeBytes, redirectTo } = failure;
  if ([status, error, body, html, hugeBytes, redirectTo].every((one) => one === undefined)) return false;
  const type = failure.contentType ?? (html === undefined ? 'application/json' : 'text/html; charset=utf-8');
  const headers = { 'content-type': type, 'cache-control': 'no-store', ...(redirectTo && { location: redirectTo }), ...failure.headers };
  res.writeHead(status ?? (redirectTo ? 307 : error ? 400 : 200), headers);
  if (hugeBytes) return huge(res, hugeBytes);
  const said = error ? { error, ...(failure.errorDescription && { error_description: failure.errorDescription }) } : '';
  const text = html === true ? '<!doctype html><title>Sorry</title><h1>502</h1>' : html ?? body ?? said;
  res.end(typeof text === 'string' ? text : JSON.stringify(text));
  return true;
}

async function huge(res, bytes) {
  res.write('{"access_token":"');
  for (let left = bytes; left > 0 && !res.destroyed; left -= BLOCK.length) {
    if (!res.write(left < BLOCK.length ? BLOCK.subarray(0, left) : BLOCK)) {
      await new Promise((go) => { res.once('drain', go); res.once('close', go); });
    }
  }
  res.end('"}');
  return true;
}

// The work is done: keep its answer back for a while, or cut the connection so that nobody hears of it.
export async function afterwards(failure, ctx) {
  if (failure.delayAfterMs) await sleep(failure.delayAfterMs);
  if (failure.dropAfter) {
    ctx.respond = false;
    ctx.req.socket.destroy();
  }
}
