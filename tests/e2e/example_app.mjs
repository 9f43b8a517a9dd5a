// The example app in a real browser: `node example_app.mjs SCENARIO URL VIEWPORT [SCREENSHOT]`.
//
// Ends with status 0 and prints `passed` when everything was as it should be. A scenario that wants the server
// gone prints `kill server`; when it wants it back it prints `start server` and goes on when a line comes back.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import { LIMIT, open as openWindow, play, server } from './browser.mjs';

const [scenario, url, viewport, screenshot] = process.argv.slice(2);
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

const open = (options) => openWindow(url, viewport, options);

async function comeIn(page, name, room = 'Lobby') {
  await page.locator('#name').fill(name);
  await page.getByRole('radio', { name: room }).check();
  await page.locator('#join').click();
}

const isIn = (page) => page.locator('#app').waitFor();

async function person(name, room, options) {
  const page = await open(options);
  await comeIn(page, name, room);
  await isIn(page);
  return page;
}

const say = async (page, text) => {
  await page.locator('#text').fill(text);
  await page.locator('#send').click();
};
const bubble = (page, text) => page.locator('.message', { hasText: text });
const sees = (page, text) => bubble(page, text).waitFor();
const ticked = (page, text) => bubble(page, text).locator('.state[data-state=sent]', { hasText: '✓' }).waitFor();
const reads = (page, selector, text) => page.locator(selector, { hasText: text }).waitFor();
const present = (page, ...names) => page.waitForFunction(
  (expected) => [...document.querySelectorAll('#people li')].map((row) => row.dataset.name).join() === expected,
  names.join(),
);

// A picture, painted by the browser: hills in the evening.
async function paint(page, width = 640, height = 400) {
  const base64 = await page.evaluate(([w, h]) => {
    const canvas = Object.assign(document.createElement('canvas'), { width: w, height: h });
    const c = canvas.getContext('2d');
    const sky = c.createLinearGradient(0, 0, 0, h);
    [['#26496b', 0], ['#d98c6a', 0.55], ['#f6d9a4', 0.8]].forEach(([color, at]) => sky.addColorStop(at, color));
    c.fillStyle = sky;
    c.fillRect(0, 0, w, h);
    c.fillStyle = '#fff3d6';
    c.beginPath();
    c.arc(w * 0.68, h * 0.5, h * 0.09, 0, 7);
    c.fill();
    ['#7d7f93', '#4f6678', '#2f4d57', '#16343a'].forEach((color, i) => {
      c.fillStyle = color;
      c.beginPath();
      c.moveTo(0, h);
      for (let x = 0; x <= w; x += 4) {
        c.lineTo(x, h * (0.56 + i * 0.1) + Math.sin(x / (70 - i * 9) + i * 2) * (26 - i * 3) + Math.sin(x / 23 + i) * 5);
      }
      c.lineTo(w, h);
      c.fill();
    });
    return canvas.toDataURL('image/png').split(',')[1];
  }, [width, height]);
  return Buffer.from(base64, 'base64');
}

async function download(page, name) {
  const [file] = await Promise.all([page.waitForEvent('download'), page.getByRole('link', { name }).click()]);
  return readFile(await file.path());
}

const scenarios = {
  async chat() {
    const ada = await person('Ada');
    const ben = await person('Ben');
    await present(ada, 'Ada', 'Ben');
    await present(ben, 'Ada', 'Ben');
    assert.equal(await ada.evaluate(() => socket.io.engine.transport.name), 'websocket');
    await reads(ada, '.notice', 'Ben came in');

    // A message appears at both, in the same order, and is ticked off at the sender.
    await say(ada, 'Good evening! <b>Is</b> anybody here?');
    await sees(ben, 'Good evening! <b>Is</b> anybody here?');
    await ticked(ada, 'Good evening!');

    // The other one sees who is typing, until the message is there.
    await ben.locator('#text').pressSequentially('Yes');
    await reads(ada, '#typing', 'Ben is typing');
    await ben.locator('#text').press('Enter');
    await sees(ada, 'Yes');
    await ticked(ben, 'Yes');
    await ada.waitForFunction(() => document.getElementById('typing').textContent === '');
    assert.equal(await ben.locator('#typing').textContent(), '', 'nobody sees their own typing');

    // The server's clock and the round trip that it measures.
    for (const page of [ada, ben]) {
      await page.waitForFunction(() => /^\d+(\.\d)? ms$/.test(document.getElementById('round-trip').textContent));
      await page.waitForFunction(() => /\d:\d\d/.test(document.getElementById('clock').textContent));
      await reads(page, '#online', '2 online');
    }

    // Another room hears nothing, and doesn't count as present.
    await ben.locator('#rooms button', { hasText: 'Garden' }).click();
    await present(ben, 'Ben');
    await present(ada, 'Ada');
    await say(ada, 'Only for the lobby');
    await ticked(ada, 'Only for the lobby');
    await ada.locator('#rooms button', { hasText: 'Garden' }).click();
    await present(ben, 'Ada', 'Ben');
    await say(ada, 'Nice out here');
    await sees(ben, 'Nice out here');
    assert.equal(await bubble(ben, 'Only for the lobby').count(), 0);

    // What was said before is there for whoever comes later.
    await ben.locator('#rooms button', { hasText: 'Lobby' }).click();
    await sees(ben, 'Only for the lobby');
  },

  async files() {
    const ada = await person('Ada');
    const ben = await person('Ben');
    const picture = await paint(ada);
    await ada.locator('#file').setInputFiles({ name: 'evening.png', mimeType: 'image/png', buffer: picture });
    await ticked(ada, 'evening.png');
    await ben.waitForFunction(() => document.querySelector('#messages img[alt="evening.png"]')?.naturalWidth === 640);
    assert.deepEqual(await download(ben, 'evening.png'), picture, 'the picture must arrive byte by byte');

    // Dropped, not picked; and no picture, so it is offered as a download.
    const bytes = Buffer.from(Array.from({ length: 70_000 }, (_, i) => (i * 7 + (i >> 8)) % 256));
    await ben.evaluate((base64) => {
      const content = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
      const dataTransfer = new DataTransfer();
      dataTransfer.items.add(new File([content], 'page.html', { type: 'text/html' }));
      for (const type of ['dragover', 'drop']) {
        document.querySelector('main').dispatchEvent(new DragEvent(type, { dataTransfer, bubbles: true, cancelable: true }));
      }
    }, bytes.toString('base64'));
    await ticked(ben, 'page.html');
    assert.deepEqual(await download(ada, 'page.html'), bytes);
    assert.equal(await bubble(ada, 'page.html').locator('img').count(), 0);

    // The largest file that is allowed passes, one byte more is declined, politely.
    const largest = Number(await ada.locator('body').getAttribute('data-max-file-bytes'));
    const send = (name, size) => ada.locator('#file').setInputFiles({ name, mimeType: '', buffer: Buffer.alloc(size, 1) });
    await send('largest.bin', largest);
    await ticked(ada, 'largest.bin');
    assert.equal((await download(ben, 'largest.bin')).length, largest);
    await send('larger.bin', largest + 1);
    await reads(ada, '#problem', /larger\.bin has [\d,]+ kB\. Files of up to 700 kB can be sent\./);
    await send('empty.bin', 0);
    await reads(ada, '#problem', 'This file is empty.');
    assert.equal(await bubble(ada, /larger|empty/).count(), 0);

    // A latecomer is told that there was a file.
    const cleo = await person('Cleo');
    await reads(cleo, '.gone', 'evening.png');
  },

  async refused() {
    const ada = await person('Ada');
    const other = await open();
    for (const [name, words] of [
      ['  ', 'Please tell us your name.'],
      ['x'.repeat(21), 'A name has 20 characters at most.'],
      ['aDA', 'aDA is here already. Please choose another name.'],
    ]) {
      await comeIn(other, name);
      await reads(other, '#login-error', words);
      assert.equal(await other.locator('#app').isVisible(), false);
      await other.waitForFunction(() => !document.getElementById('join').disabled);
    }
    await present(ada, 'Ada');

    // Each way of leaving frees the name.
    await ada.locator('#leave').click();
    await ada.locator('#login').waitFor();
    await other.locator('#name').fill('Ada');
    await retry(other);
    await present(other, 'Ada');
    await other.context().close();
    await ada.locator('#name').fill('Ada');
    await retry(ada);
    await present(ada, 'Ada');
  },

  async errors() {
    const ada = await person('Ada');
    await ada.locator('#send').click();
    await reads(ada, '#problem', 'Write something first, then send it.');
    await ada.locator('#text').fill('x'.repeat(501));
    assert.equal(await ada.locator('#problem').isVisible(), false, 'typing takes the error away');
    await ada.locator('#send').click();
    await reads(ada, '#problem', 'That is 501 characters. A message has 500 at most.');
    await ada.waitForFunction(() => document.getElementById('text').value.length === 501); // nothing is lost
    assert.equal(await ada.locator('.message').count(), 0);

    // Whatever a page sends, it is answered, and the chat goes on.
    const answers = await ada.evaluate(async () => {
      const all = [];
      for (const [event, data] of [['message', null], ['message', 7], ['message', { text: {} }], ['message', { text: 'a' }],
        ['file', { data: 'no bytes' }], ['enter', 'Lobby'], ['enter', { room: 'Cellar' }]]) {
        all.push(await socket.timeout(5000).emitWithAck(event, data));
      }
      return all;
    });
    for (const answer of answers) assert.ok(answer.ok === false && answer.error.length > 5, JSON.stringify(answers));
    await say(ada, 'Still here');
    await ticked(ada, 'Still here');
  },

  async again() {
    const ada = await person('Ada');
    const ben = await person('Ben');
    await present(ada, 'Ada', 'Ben');
    // The connection breaks before the acknowledgement is there: nobody knows whether the message has arrived. Either
    // the server's history or a second try brings the tick, and the others see the message exactly once.
    await ada.evaluate(() => {
      write('Said once');
      sendText();
      socket.io.engine.close();
    });
    await reads(ada, '#banner', 'Connection lost. Trying again…');
    await ada.locator('#banner').waitFor({ state: 'hidden' });
    const button = ada.getByRole('button', { name: 'Try again' });
    if (await button.isVisible()) await button.click();
    await ticked(ada, 'Said once');
    // The same again on purpose, and then something that shows that all before it has arrived.
    await ada.evaluate(async () => {
      const data = { id: newId(), text: 'Said twice' };
      await ask('message', data);
      await ask('message', data);
    });
    await say(ada, 'The end');
    await sees(ben, 'The end');
    assert.deepEqual(await ben.locator('.message .bubble').allTextContents(), ['Said once', 'Said twice', 'The end']);
  },

  async reload() {
    const ada = await person('Ada', 'Garden');
    const ben = await person('Ben', 'Garden');
    await say(ada, 'Back in a second');
    await sees(ben, 'Back in a second');
    await ada.reload();
    await isIn(ada);
    await present(ada, 'Ada', 'Ben');
    await present(ben, 'Ada', 'Ben');
    await sees(ada, 'Back in a second');
    await say(ada, 'Here I am');
    await sees(ben, 'Here I am');
    await say(ben, 'Welcome back');
    await sees(ada, 'Welcome back');
  },

  async restart() {
    const ada = await person('Ada');
    const ben = await person('Ben');
    await say(ada, 'Before the restart');
    await sees(ben, 'Before the restart');
    server.isDown = true;
    console.log('kill server');
    for (const page of [ada, ben]) await reads(page, '#banner', 'Connection lost. Trying again…');
    assert.equal(await ada.locator('#send').isEnabled(), false);
    console.log('start server');
    await lines.next();
    for (const page of [ada, ben]) {
      await page.locator('#banner').waitFor({ state: 'hidden' });
      await isIn(page);
      await present(page, 'Ada', 'Ben');
    }
    server.isDown = false;
    await sees(ada, 'Before the restart');
    await say(ada, 'After the restart');
    await sees(ben, 'After the restart');
    await ticked(ada, 'After the restart');
  },

  async screenshot() {
    const dark = viewport === 'phone' ? { colorScheme: 'dark' } : {};
    const ben = await person('Ben');
    const cleo = await person('Cleo');
    const ada = await person('Ada', 'Lobby', dark);
    const dan = await person('Dan', 'Garden');
    await say(cleo, 'The new server is up. I have forty phones on it and the fan is still off.');
    await sees(ada, 'forty phones');
    await say(ada, 'Same here: the round trip hardly moves.');
    await sees(ben, 'hardly moves');
    await say(ben, 'Look what I see from the office right now:');
    await sees(ada, 'from the office');
    await ben.locator('#file').setInputFiles({ name: 'evening.png', mimeType: 'image/png', buffer: await paint(ben, 880, 420) });
    await ada.locator('#messages img').waitFor();
    await say(ada, 'Lovely. Close the laptop and go for a walk!');
    await sees(ben, 'go for a walk');
    await ticked(ada, 'go for a walk');
    await ada.waitForFunction(() => trips.length >= 12); // enough for the curve
    await reads(ada, '#online', '4 online');
    const shot = async () => {
      await cleo.locator('#text').pressSequentially('On my');
      await reads(ada, '#typing', 'Cleo is typing');
      await ada.screenshot({ path: screenshot, animations: 'disabled' });
    };
    await shot();
    assert.ok(dan);
  },
};

// The server hears of a closed window a moment later: until then it rightly says that the name is taken.
async function retry(page) {
  const end = Date.now() + LIMIT;
  for (;;) {
    await page.locator('#join').click();
    await page.waitForFunction(() => !document.getElementById('app').hidden || !document.getElementById('join').disabled);
    if (await page.locator('#app').isVisible()) return isIn(page);
    assert.match(await page.locator('#login-error').textContent(), /is here already/);
    assert.ok(Date.now() < end, 'the name was never freed');
  }
}

await play(scenarios[scenario]);
