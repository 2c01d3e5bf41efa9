// Pages of several origins use the gateway in Chromium, as an attacker's page and as an allowed one.
//
//   node origins.mjs SETTINGS      SETTINGS is JSON: chromium, gateway, through, foreign, allowed, secret
//
// Prints a line of JSON for each page, and one at each step at which the test has to act.

import { chromium } from 'playwright-core';

const settings = JSON.parse(process.argv[2]);
const { gateway, through, secret } = settings;
const type = 'shop.order-placed.v1';
const within = 20_000;
const print = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

const order = (id) => ({
  order_id: id,
  customer_id: 'c-1',
  lines: [{ article: 'kettle', quantity: 1, price_cents: 4900 }],
  total_cents: 4900,
  placed_at: '2026-11-30T08:00:00Z',
});

// The functions below run in the page.

// The status of an answer that the page may read, or the name of the error.
const fetched = async ({ url, init }) => {
  try {
    const answer = await fetch(url, init);
    return answer.type === 'opaque' ? 'opaque' : answer.status;
  } catch (error) {
    return error.name;
  }
};

// Whether a stream opens. One that fails for good is closed, and is not tried again.
const sourceEnds = ({ url, within }) =>
  new Promise((resolve) => {
    const source = new EventSource(url);
    const end = (result) => {
      source.close();
      resolve(result);
    };
    source.onopen = () => end('open');
    source.onerror = () => end(source.readyState === EventSource.CLOSED ? 'refused' : 'retried');
    setTimeout(() => end('silent'), within);
  });

// The kind of the first message of a WebSocket, or how it ended.
const socketEnds = ({ url, within }) =>
  new Promise((resolve) => {
    const socket = new WebSocket(url);
    const end = (result) => {
      socket.close();
      resolve(result);
    };
    socket.onmessage = (message) => end(JSON.parse(message.data).kind);
    socket.onerror = () => end('refused');
    setTimeout(() => end('silent'), within);
  });

// Reads a stream from now on, over as many connections as it takes.
const watch = ({ url, type }) => {
  window.seen = [];
  window.opened = 0;
  window.beats = 0;
  window.source = new EventSource(url);
  window.source.onopen = () => {
    window.opened += 1;
  };
  window.source.addEventListener('heartbeat', () => {
    window.beats += 1;
  });
  window.source.addEventListener(type, (event) => {
    window.seen.push(JSON.parse(event.data).data.order_id);
  });
};

const submit = ({ url, text }) => {
  const form = document.createElement('form');
  form.method = 'post';
  form.action = url;
  form.enctype = 'text/plain';
  const field = document.createElement('input');
  field.name = text;
  field.value = '';
  form.append(field);
  document.body.append(form);
  form.submit();
};

const json = (id) => ({
  method: 'POST',
  headers: { 'content-type': 'application/json' },
  body: JSON.stringify(order(id)),
});

const ws = (url) => url.replace('http:', 'ws:');

// What every page tries, whatever its origin is.
async function attempts(page, id) {
  const post = `${gateway}/events/${type}`;
  const stream = `${gateway}/events?type=${type}`;
  const simple = {
    method: 'POST',
    mode: 'no-cors',
    headers: { 'content-type': 'text/plain' },
    body: JSON.stringify(order(`${id}-simple`)),
  };
  return {
    simplePost: await page.evaluate(fetched, { url: post, init: simple }),
    jsonPost: await page.evaluate(fetched, { url: post, init: json(`${id}-json`) }),
    read: await page.evaluate(fetched, { url: `${gateway}/problems/gone` }),
    eventSource: await page.evaluate(sourceEnds, { url: stream, within }),
    webSocket: await page.evaluate(socketEnds, { url: ws(`${gateway}/ws?type=${type}`), within }),
  };
}

// The status of a form's post, which needs no preflight and navigates to the answer.
async function formPost(page, id) {
  const url = `${gateway}/events/${type}`;
  const answered = page.waitForResponse((answer) => answer.url() === url, { timeout: within });
  // The navigation may end the script's context before it is told the result.
  await page.evaluate(submit, { url, text: JSON.stringify(order(`${id}-form`)) }).catch(() => {});
  return (await answered).status();
}

async function foreignPage(browser, origin, index) {
  const page = await browser.newPage();
  await page.goto(origin);
  const tried = await attempts(page, `foreign-${index}`);
  const form = await formPost(page, `foreign-${index}`);
  await page.close();
  print({ page: 'foreign', origin, ...tried, form });
}

async function allowedPage(browser) {
  const page = await browser.newPage();
  await page.goto(settings.allowed);
  const tried = await attempts(page, 'allowed');
  await page.evaluate(watch, { url: `${through}/events?type=${type}`, type });
  const until = (what, value) =>
    page.waitForFunction(({ what, value }) => window[what] >= value, { what, value }, { timeout: within });
  const seen = (count) =>
    page.waitForFunction((count) => window.seen.length >= count, count, { timeout: within });
  await until('beats', 1);
  print({ step: 'watching' });
  await seen(2);
  print({ step: 'cut' });
  await seen(4);
  // Nothing comes twice in the time of a further frame.
  await until('opened', 2);
  await page.waitForTimeout(500);
  const ended = await page.evaluate(() => ({ seen: window.seen, opened: window.opened }));
  await page.close();
  print({ page: 'allowed', ...tried, ...ended });
}

// A token in the URL, as a user pastes it into the address bar.
async function tokenInUrl(browser) {
  const page = await browser.newPage();
  const url = `${gateway}/events?type=${type}&access_token=${secret}`;
  const answered = page.waitForResponse((answer) => answer.url() === url, { timeout: within });
  // A browser that offers the problem as a download has no page for it.
  await page.goto(url).catch(() => {});
  const answer = await answered;
  const text = await answer.text().catch(() => '');
  await page.close();
  print({ page: 'token', status: answer.status(), shows: text.includes(secret) });
}

const browser = await chromium.launch({
  executablePath: settings.chromium,
  args: ['--no-sandbox', '--disable-dev-shm-usage'],
});
try {
  for (const [index, origin] of settings.foreign.entries()) await foreignPage(browser, origin, index);
  await tokenInUrl(browser);
  await allowedPage(browser);
} finally {
  await browser.close();
}
