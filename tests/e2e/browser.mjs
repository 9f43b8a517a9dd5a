// Chromium for the pages of the example app: windows of several sizes, and a list of what the pages complain about.

import { chromium } from 'playwright-core';
import assert from 'node:assert/strict';

export const LIMIT = 30_000; // ms for anything that is waited for
const VIEWPORTS = {
  desk: { viewport: { width: 1280, height: 800 } },
  phone: { viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true },
};

const browser = await chromium.launch({
  executablePath: '/usr/bin/chromium',
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync'],
});
const complaints = []; // what the pages wrote to the console, or threw
export const server = { isDown: false }; // while it is, and only then, the browser may complain that it can't connect

// Somebody with a window of their own: another cookie jar, another session storage.
export async function open(url, viewport, options = {}) {
  const context = await browser.newContext({
    ...VIEWPORTS[viewport], locale: 'en-GB', ignoreHTTPSErrors: url.startsWith('https:'), ...options,
  });
  const page = await context.newPage();
  page.setDefaultTimeout(LIMIT);
  page.on('pageerror', (error) => complaints.push(`page error: ${error.stack}`));
  page.on('console', (message) => {
    if (!['error', 'warning'].includes(message.type())) return;
    if (server.isDown && /net::ERR_|WebSocket connection|status of 502/.test(message.text())) return;
    complaints.push(`console ${message.type()}: ${message.text()} (${message.location().url})`);
  });
  await page.goto(url);
  return page;
}

// Run a scenario; prints `passed`, or ends with status 1 and says why.
export async function play(scenario) {
  try {
    await scenario();
    for (const page of browser.contexts().flatMap((context) => context.pages())) {
      // No sideways scrolling, on any screen.
      const { scroll, client } = await page.evaluate(() => ({
        scroll: document.documentElement.scrollWidth, client: document.documentElement.clientWidth,
      }));
      assert.ok(scroll <= client, `the page is ${scroll} wide, the window ${client}`);
    }
    assert.deepEqual(complaints, []);
    console.log('passed');
  } catch (error) {
    console.error(error);
    console.error(complaints.join('\n'));
    process.exitCode = 1;
  } finally {
    await browser.close();
    process.stdin.destroy();
  }
}
