// The example's page for long tasks in a real browser: `node darkroom.mjs SCENARIO URL VIEWPORT MAKER [SCREENSHOT]`.
//
// MAKER is what the page says of who makes the pictures, a regular expression. Each small picture that is seen whole is
// printed as `picture ID PLACE|DEPTH|SIZE`, so that its bytes can be compared; `passed` comes last.

import assert from 'node:assert/strict';
import { open as openWindow, play } from './browser.mjs';

const [scenario, url, viewport, maker, screenshot] = process.argv.slice(2);
const LONG = 180_000; // ms for a picture, on a machine that has other things to do as well
const open = (options) => openWindow(`${url}/darkroom/`, viewport, options);

async function order(page, place, depth = 0, size = 'small') {
  const before = await page.locator('.task').count();
  await page.getByRole('radio', { name: place }).check();
  await page.locator('#depth').fill(String(depth));
  await page.locator(`[name=size][value=${size}]`).check();
  await page.getByRole('button', { name: 'Develop' }).click();
  await page.waitForFunction((count) => document.querySelectorAll('.task').length > count, before);
  const id = await page.locator('.task').first().getAttribute('data-id');
  return { id, text: `picture ${id} ${place}|${depth}|${size}`, row: page.locator(`[data-id="${id}"]`) };
}

const is = (page, { id }, state, timeout = LONG) => page.waitForFunction(
  ([task, wanted]) => document.querySelector(`[data-id="${task}"]`)?.dataset.state === wanted, [id, state], { timeout },
);
const beyond = (page, { id }, percent) => page.waitForFunction(
  ([task, least]) => {
    const row = document.querySelector(`[data-id="${task}"]`);
    return row?.dataset.state === 'working' && row.querySelector('progress').value >= least;
  }, [id, percent], { timeout: LONG },
);
const value = (task) => task.row.locator('progress').evaluate((bar) => bar.value);

// Keep what the bar shows, from now on.
const record = (page, { id }) => page.evaluate((task) => {
  const bar = document.querySelector(`[data-id="${task}"] progress`);
  window.seen = [];
  new MutationObserver(() => window.seen.push(bar.value)).observe(bar, { attributes: true });
}, id);

async function isSeen(page, task, width = 480) {
  await is(page, task, 'done');
  await page.waitForFunction(
    ([id, expected]) => document.querySelector(`[data-id="${id}"] img`).naturalWidth === expected, [task.id, width],
  );
  assert.match(await task.row.locator('.state').textContent(), /^Made in [\d.]+ s by /);
  if (width === 480) console.log(task.text);
}

const scenarios = {
  // The bar moves, the picture comes, and another page hears nothing of it.
  async develop() {
    const ada = await open();
    const ben = await open();
    assert.equal(await ada.locator('.task').count(), 0);
    const large = await order(ada, 'Pinwheel', 3, 'large');
    await record(ada, large);
    const bar = ada.getByRole('progressbar', { name: 'Pinwheel, 1,000 ×' });
    await bar.waitFor();
    const news = await ben.evaluate(() => {
      window.heard = [];
      socket.onAny((...event) => window.heard.push(event));
      return window.heard.length;
    });
    assert.equal(news, 0);
    await isSeen(ada, large, 960);
    assert.match(await large.row.locator('.state').textContent(), new RegExp(maker));
    assert.equal(await bar.isVisible(), false);
    const seen = await ada.evaluate(() => window.seen);
    const between = new Set(seen.filter((percent) => percent > 0 && percent < 100));
    assert.ok(between.size >= 5, `the bar showed ${[...between]}`);
    assert.deepEqual(seen, [...seen].sort((a, b) => a - b), 'a bar never goes back');

    // The other page's own task is seen there, and there alone.
    const small = await order(ben, 'Lightning', 2);
    await isSeen(ben, small);
    const heard = await ben.evaluate(() => window.heard.map(([, { id }]) => id));
    assert.deepEqual([...new Set(heard)], [small.id]);
    assert.equal(await ada.locator('.task').count(), 1);
    assert.equal(await ada.locator('#news').textContent(), `Pinwheel, 1,000 ×: ${await large.row.locator('.state').textContent()}`);
  },

  // Several at once, each with a bar of its own.
  async several() {
    const ada = await open();
    const tasks = [];
    for (const [place, depth] of [['Lightning', 2], ['Lightning', 4], ['Pinwheel', 3]]) {
      tasks.push(await order(ada, place, depth));
    }
    // Not their bars: a busy machine may be done with the first one before the last one is ordered.
    assert.equal(await ada.locator('.task').count(), 3);
    for (const task of tasks) await isSeen(ada, task);
    await tasks[1].row.getByRole('button', { name: 'Remove' }).click();
    await ada.reload();
    for (const task of [tasks[0], tasks[2]]) await isSeen(ada, task);
    assert.equal(await ada.locator('.task').count(), 2);
  },

  // A page that is reloaded sees its task again, under way and at its end.
  async reload() {
    const ada = await open();
    const task = await order(ada, 'Seahorse valley', 3, 'large');
    await beyond(ada, task, 10);
    const before = await value(task);
    await ada.reload();
    await beyond(ada, task, before);
    // So does one whose connection was lost.
    await ada.evaluate(() => socket.io.engine.close());
    await isSeen(ada, task, 960);
    await ada.reload();
    await isSeen(ada, task, 960);
  },

  async cancel() {
    const ada = await open();
    const tasks = [];
    for (let count = 0; count < 6; count += 1) tasks.push(await order(ada, 'Seahorse valley', 3, 'large'));
    await beyond(ada, tasks[0], 1);
    await ada.getByRole('button', { name: 'Develop' }).click();
    await ada.locator('#problem', { hasText: '6 pictures at a time, please.' }).waitFor();
    // Those that wait and the one that is under way end at once, also for a page that comes later.
    for (const task of tasks.reverse()) {
      await task.row.getByRole('button', { name: 'Cancel' }).click();
      await is(ada, task, 'cancelled');
    }
    await ada.reload();
    for (const task of tasks) await is(ada, task, 'cancelled');
    // Whoever has worked on them is free again.
    await isSeen(ada, await order(ada, 'Lightning', 2));
    for (const task of tasks) assert.equal(await task.row.getAttribute('data-state'), 'cancelled');
  },

  async failure() {
    const ada = await open();
    const task = await order(ada, 'Seahorse valley', 16);
    await is(ada, task, 'failed');
    const words = 'That is too deep: neighbouring points have become the same number. Magnify less.';
    await task.row.locator('.error', { hasText: words }).waitFor();
    await ada.reload();
    await task.row.locator('.error', { hasText: words }).waitFor();

    // Whatever a page sends, it is answered.
    const answers = await ada.evaluate(async () => {
      const all = [];
      const place = 'Lightning';
      for (const [event, data] of [['start', null], ['start', { place: 'Moon' }], ['start', { place, size: 'small', depth: true }],
        ['start', { place, size: 'small', depth: 99 }], ['start', { place, size: [], depth: 1 }], ['cancel', 7], ['cancel', 'x']]) {
        all.push(await socket.timeout(5000).emitWithAck(event, data));
      }
      return all;
    });
    for (const answer of answers) assert.ok(answer.ok === false && answer.error.length > 5, JSON.stringify(answers));
    const unknown = '00000000-0000-0000-0000-000000000000';
    const watched = await ada.evaluate((id) => socket.timeout(5000).emitWithAck('watch', [id, socket.id, 7]), unknown);
    assert.deepEqual(watched, { ok: true, tasks: [{ id: unknown, state: 'gone' }] });
    assert.equal((await ada.request.get(`${url}/darkroom/${unknown}.png`)).status(), 404);
    await isSeen(ada, await order(ada, 'Lightning', 2));
  },

  async screenshot() {
    const ada = await open();
    await isSeen(ada, await order(ada, 'Seahorse valley', 3));
    const task = await order(ada, 'Pinwheel', 3, 'large');
    await order(ada, 'The whole set', 0, 'large');
    await beyond(ada, task, 30);
    await ada.screenshot({ path: screenshot, animations: 'disabled' });
  },
};

await play(scenarios[scenario]);
