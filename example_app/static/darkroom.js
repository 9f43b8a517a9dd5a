// The page's side of the darkroom. `io` comes from the official client, which is loaded before this file.
'use strict';

const $ = (id) => document.getElementById(id);
const ANSWER_WITHIN = 8000; // ms to wait for an acknowledgement
const FINAL = ['done', 'failed', 'cancelled', 'gone'];
const pictures = document.body.dataset.pictures;
const maxWatched = Number(document.body.dataset.maxWatched);

// What this tab has ordered: id and title, oldest first. How far each one is, the server knows.
let mine = JSON.parse(sessionStorage.getItem('pictures') || '[]');
const early = new Map(); // news of a task that we don't know yet: they may be here before the acknowledgement

const socket = io('/darkroom', { transports: ['websocket', 'polling'], tryAllTransports: true });

// Ask the server for something and return its answer; an answer that says no is an Error with the server's words.
async function ask(event, data) {
  let answer;
  try {
    answer = await socket.timeout(ANSWER_WITHIN).emitWithAck(event, data);
  } catch {
    throw new Error('The server didn’t answer.');
  }
  if (!answer.ok) throw new Error(answer.error);
  return answer;
}

function show(element, text) {
  element.hidden = !text;
  element.textContent = text || '';
}

// The connection

// After a reload, or when the connection was lost, the server has to be told again what we want to hear of.
socket.on('connect', async () => {
  $('start').disabled = false;
  $('banner').hidden = true;
  if (!mine.length) return;
  try {
    const { tasks } = await ask('watch', mine.map(({ id }) => id));
    tasks.forEach(note);
  } catch (error) {
    show($('problem'), error.message);
  }
});

const lost = () => {
  $('start').disabled = true;
  $('banner').hidden = false;
};
socket.on('disconnect', lost);
socket.on('connect_error', lost);

// Ordering

$('depth').addEventListener('input', showDepth);

function showDepth() {
  const times = (10 ** $('depth').valueAsNumber).toLocaleString('en');
  $('times').textContent = times;
  $('depth').setAttribute('aria-valuetext', `${times} times`);
}

$('order').addEventListener('submit', async (event) => {
  event.preventDefault();
  const form = new FormData(event.target);
  const order = { place: form.get('place'), depth: Number(form.get('depth')), size: form.get('size') };
  show($('problem'));
  let id;
  try {
    ({ id } = await ask('start', order));
  } catch (error) {
    show($('problem'), error.message);
    return;
  }
  const times = order.depth ? `, ${(10 ** order.depth).toLocaleString('en')} ×` : '';
  keep([...mine, { id, title: `${order.place}${times}` }]);
  note(early.get(id) || { id, state: 'waiting' });
  early.clear();
});

function keep(tasks) {
  for (const { id } of tasks.slice(0, -maxWatched)) row(id)?.remove();
  mine = tasks.slice(-maxWatched);
  sessionStorage.setItem('pictures', JSON.stringify(mine));
}

// What becomes of it

socket.on('task', note);

function note(news) {
  const task = mine.find(({ id }) => id === news.id);
  if (!task) {
    early.set(news.id, news);
    return;
  }
  const item = row(news.id) || add(task);
  const before = item.dataset.state;
  const bar = item.querySelector('progress');
  // An answer may be older than news that came meanwhile: nothing goes back, and an end is an end.
  if (FINAL.includes(before) || (before === 'working' && news.state === 'waiting')) return;
  if (news.state === 'working' && before === 'working' && news.done < bar.value) return;
  item.dataset.state = news.state;
  if (news.state === 'waiting') bar.removeAttribute('value'); // so it shows that nobody knows how long
  else bar.value = news.done ?? bar.value;
  const text = {
    waiting: 'Waiting for its turn…',
    working: `${news.done} %`,
    done: `Made in ${news.seconds} s by ${news.maker}`,
    failed: 'Failed',
    cancelled: 'Cancelled',
    gone: 'The server doesn’t have it any more',
  }[news.state];
  item.querySelector('.state').textContent = text;
  show(item.querySelector('.error'), news.error);
  if (news.state === 'done') showPicture(item, task);
  if (before && before !== news.state && news.state !== 'working') $('news').textContent = `${task.title}: ${text}`;
}

const row = (id) => document.querySelector(`[data-id="${CSS.escape(id)}"]`);

function add({ id, title }) {
  const item = $('task').content.firstElementChild.cloneNode(true);
  item.dataset.id = id;
  const heading = item.querySelector('h3');
  heading.id = `title-${id}`;
  heading.textContent = title;
  item.querySelector('progress').setAttribute('aria-labelledby', heading.id);
  item.querySelector('.cancel').setAttribute('aria-label', `Cancel ${title}`);
  item.querySelector('.remove').setAttribute('aria-label', `Remove ${title}`);
  item.querySelector('.cancel').addEventListener('click', async () => {
    try {
      await ask('cancel', id);
    } catch (error) {
      show($('problem'), error.message);
    }
  });
  item.querySelector('.remove').addEventListener('click', () => {
    item.remove();
    keep(mine.filter((task) => task.id !== id));
  });
  $('tasks').prepend(item);
  return item;
}

function showPicture(item, { id, title }) {
  const link = item.querySelector('.picture');
  const image = link.querySelector('img');
  image.alt = title;
  image.src = link.href = `${pictures}${id}.png`;
  link.download = `${title}.png`;
  link.hidden = false;
}

showDepth();
