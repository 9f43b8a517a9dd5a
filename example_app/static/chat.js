// The page's side of the chat. `io` comes from the official client, which is loaded before this file.
'use strict';

const $ = (id) => document.getElementById(id);
const ANSWER_WITHIN = 8000; // ms to wait for an acknowledgement
const TYPING_EVERY = 2000; // ms between two "still typing"
const TYPING_LASTS = 5000; // ms after which somebody isn't typing any more
const PICTURES = ['image/png', 'image/jpeg', 'image/gif', 'image/webp', 'image/avif'];
const maxFileBytes = Number(document.body.dataset.maxFileBytes);

// Who we are. The key proves to the server, after a reload, that it is us again; each tab has its own.
const me = { name: '', room: '', key: sessionStorage.getItem('key') || newId() };
sessionStorage.setItem('key', me.key);

// WebSocket at once, long-polling where that doesn't get through: a name is then refused on a connection that is not
// yet in the middle of an upgrade.
const socket = io({
  autoConnect: false,
  transports: ['websocket', 'polling'],
  tryAllTransports: true,
  auth: (give) => give({ name: me.name, key: me.key }),
});
let people = {}; // the newest list of each room
let inside = ''; // the room that the server has let us into

function newId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('');
}

function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

function show(element, text) {
  element.hidden = !text;
  element.textContent = text || '';
}

// Ask the server for something and return its answer; an answer that says no is an Error with the server's words.
async function ask(event, data) {
  let answer;
  try {
    answer = await socket.timeout(ANSWER_WITHIN).emitWithAck(event, data);
  } catch {
    throw new Error('The server didn’t answer.');
  }
  if (!answer.ok) throw Object.assign(new Error(answer.error), { refused: true });
  return answer;
}

// Coming in

$('login-form').addEventListener('submit', (event) => {
  event.preventDefault();
  const form = new FormData(event.target);
  comeIn(form.get('name'), form.get('room'));
});

function comeIn(name, room) {
  Object.assign(me, { name: name.trim(), room });
  show($('login-error'));
  $('join').disabled = true;
  socket.connect();
}

function goOut(message) {
  socket.disconnect();
  inside = '';
  sessionStorage.removeItem('name');
  $('app').hidden = true;
  $('login').hidden = false;
  $('join').disabled = false;
  $('name').value = me.name;
  clearMessages();
  show($('login-error'), message);
  $('name').focus();
}

$('leave').addEventListener('click', () => goOut());

socket.on('connect', async () => {
  people = {};
  sessionStorage.setItem('name', me.name);
  await enter(me.room);
});

socket.on('connect_error', (error) => {
  if (socket.active) {
    // The server can't be reached; the client goes on trying.
    if ($('app').hidden) show($('login-error'), 'The server can’t be reached. Still trying…');
    else showBanner('Connection lost. Trying again…');
  } else {
    goOut(error.message); // The server has refused us, and says why.
  }
});

socket.on('disconnect', (reason) => {
  inside = '';
  $('send').disabled = true;
  if (reason === 'io client disconnect') return;
  if (reason === 'io server disconnect') goOut('You came in again from another window.');
  else showBanner('Connection lost. Trying again…');
});

function showBanner(text) {
  $('banner').hidden = !text;
  $('banner-text').textContent = text || '';
}

// Rooms and people

async function enter(room) {
  let answer;
  try {
    answer = await ask('enter', { room });
  } catch (error) {
    if (socket.connected) goOut(error.message);
    return;
  }
  if (me.room !== room) clearMessages();
  me.room = inside = room;
  sessionStorage.setItem('room', room);
  $('login').hidden = true;
  $('app').hidden = false;
  $('join').disabled = $('send').disabled = false;
  $('me').textContent = me.name;
  $('room-title').textContent = room;
  document.title = `${room} · Common Room`;
  showBanner();
  show($('problem'));
  typing.clear();
  showTyping();
  for (const button of document.querySelectorAll('[data-room]')) {
    if (button.dataset.room === room) button.setAttribute('aria-current', 'true');
    else button.removeAttribute('aria-current');
  }
  answer.messages.forEach(addMessage);
  showEmpty();
  notePeople(answer.people);
  if (matchMedia('(hover: hover)').matches) $('text').focus(); // not on a phone, where the keyboard would come up
}

$('rooms').addEventListener('click', (event) => {
  const button = event.target.closest('[data-room]');
  if (button && inside && button.dataset.room !== inside) enter(button.dataset.room);
});

socket.on('people', notePeople);

// Lists can arrive in another order than they were made in: the highest revision is the newest.
function notePeople(list) {
  if (people[list.room] && people[list.room].revision > list.revision) return;
  people[list.room] = list;
  if (list.room !== inside) return;
  $('people').replaceChildren(...list.names.map((name) => {
    const row = make('li');
    row.dataset.name = name;
    row.append(avatar(name), make('span', 'name', name));
    if (name === me.name) row.append(make('span', 'you', '(you)'));
    return row;
  }));
  for (const name of typing.keys()) if (!list.names.includes(name)) stopTyping(name);
}

function avatar(name) {
  const sum = Array.from(name).reduce((total, letter) => (total * 31 + letter.codePointAt(0)) % 9973, 7);
  const element = make('span', `avatar c${sum % 8}`, Array.from(name)[0].toUpperCase());
  element.setAttribute('aria-hidden', 'true');
  return element;
}

// Messages

socket.on('message', (message) => {
  stopTyping(message.name);
  addMessage(message);
});

socket.on('notice', (notice) => append(make('li', 'notice', notice.text)));

function addMessage(message) {
  const known = document.querySelector(`[data-id="${CSS.escape(message.id)}"]`);
  if (known) {
    if (known.classList.contains('mine')) setState(known, 'sent');
    return known;
  }
  const mine = message.name === me.name;
  const row = make('li', mine ? 'message mine' : 'message');
  row.dataset.id = message.id;
  row.dataset.name = message.name;
  const time = new Date(message.time * 1000).toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' });
  row.dataset.time = time;
  const who = make('p', 'who');
  who.append(make('strong', '', message.name), ` ${time}`);
  row.append(who, avatar(message.name), message.file ? fileBubble(message) : make('div', 'bubble', message.text));
  if (mine) {
    row.append(make('p', 'state'));
    setState(row, 'sent');
  }
  append(row, mine);
  return row;
}

function fileBubble({ file, data }) {
  const size = file.size < 1000 ? `${file.size} bytes` : `${Math.round(file.size / 1000)} kB`;
  if (!data) return make('div', 'bubble gone', `${file.name}, ${size}, was sent before you came in`);
  const picture = PICTURES.includes(file.type);
  // Only pictures keep the type that the sender claims: anything else may be saved, but is never opened as a page.
  const url = URL.createObjectURL(new Blob([data], { type: picture ? file.type : 'application/octet-stream' }));
  const bubble = make('div', picture ? 'bubble picture' : 'bubble');
  const link = make('a', '', file.name);
  link.href = url;
  link.download = file.name;
  const under = make('div', 'under');
  under.append(link, ' ', make('span', 'size', size));
  if (picture) {
    const image = make('img');
    image.alt = file.name;
    image.addEventListener('load', () => scrollDown());
    image.src = url;
    bubble.append(image);
  }
  bubble.append(under);
  return bubble;
}

function clearMessages() {
  for (const link of document.querySelectorAll('#messages a')) URL.revokeObjectURL(link.href);
  $('messages').replaceChildren();
}

function append(row, jump) {
  const list = $('messages');
  const last = list.lastElementChild;
  const follows = row.dataset.name && last && last.dataset.name === row.dataset.name;
  row.classList.toggle('follows', Boolean(follows));
  const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 120;
  list.append(row);
  showEmpty();
  if (atEnd || jump) scrollDown();
}

function scrollDown() {
  $('messages').scrollTop = $('messages').scrollHeight;
}

// Who reads the end goes on seeing it when an error, a longer text below or the phone's keyboard takes some of the space.
let height = 0; // of the list
new ResizeObserver(() => {
  const list = $('messages');
  if (list.scrollHeight - list.scrollTop - height < 120) scrollDown();
  height = list.clientHeight;
}).observe($('messages'));

function showEmpty() {
  const list = $('messages');
  list.querySelector('.empty')?.remove();
  if (!list.children.length) list.append(make('li', 'empty', 'It is quiet in here. Say hello, or drop a picture.'));
}

function setState(row, state, again) {
  const line = row.querySelector('.state');
  line.dataset.state = state;
  line.title = { sending: 'On its way', sent: 'The server has it', failed: '' }[state];
  line.textContent = { sending: 'Sending…', sent: `${row.dataset.time} `, failed: 'Not sent. ' }[state];
  if (state === 'sent') {
    const tick = make('span', 'tick', '✓');
    tick.setAttribute('role', 'img');
    tick.setAttribute('aria-label', 'sent');
    line.append(tick);
  }
  if (state === 'failed') {
    const button = make('button', '', 'Try again');
    button.type = 'button';
    button.addEventListener('click', again);
    line.append(button);
  }
}

// The message is shown at once and gets its tick when the server has acknowledged it. Its id makes a second try safe:
// the server recognises a message that it has already. Returns false when the server doesn't want it.
async function deliver(event, data, message) {
  const row = addMessage({ ...message, id: data.id, name: me.name, time: Date.now() / 1000 });
  setState(row, 'sending');
  try {
    await ask(event, data);
    setState(row, 'sent');
    show($('problem'));
  } catch (error) {
    show($('problem'), error.message);
    if (error.refused) {
      row.remove();
      showEmpty();
      return false;
    }
    setState(row, 'failed', () => inside && deliver(event, data, message));
  }
  return true;
}

async function sendText() {
  if (!inside) return;
  const text = $('text').value;
  const data = { id: newId(), text };
  if (!text.trim()) { // there is nothing to show, but the server has an answer to this too
    ask('message', data).catch((error) => show($('problem'), error.message));
    return;
  }
  write('');
  sayTyping(false);
  const taken = await deliver('message', data, { text });
  if (!taken && !$('text').value) write(text);
}

function write(text) {
  $('text').value = text;
  grow();
}

async function sendFile(file) {
  if (!inside) return;
  if (file.size > maxFileBytes) {
    const size = Math.ceil(file.size / 1000).toLocaleString('en');
    show($('problem'), `${file.name} has ${size} kB. Files of up to ${maxFileBytes / 1000} kB can be sent.`);
    return;
  }
  const data = await file.arrayBuffer();
  const about = { name: file.name, type: file.type, size: file.size };
  await deliver('file', { id: newId(), ...about, data }, { file: about, data });
}

$('composer').addEventListener('submit', (event) => {
  event.preventDefault();
  sendText();
});

$('text').addEventListener('keydown', (event) => {
  if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  sendText();
});

$('text').addEventListener('input', () => {
  grow();
  show($('problem'));
  sayTyping($('text').value !== '');
});

function grow() {
  $('text').style.height = 'auto';
  $('text').style.height = `${$('text').scrollHeight}px`;
}

// Files: picked, dropped or pasted

$('attach').addEventListener('click', () => $('file').click());

$('file').addEventListener('change', () => {
  for (const file of $('file').files) sendFile(file);
  $('file').value = '';
});

addEventListener('dragover', (event) => {
  event.preventDefault();
  document.body.classList.toggle('dropping', Boolean(inside) && event.dataTransfer.types.includes('Files'));
});

addEventListener('dragleave', (event) => {
  if (!event.relatedTarget) document.body.classList.remove('dropping');
});

addEventListener('drop', (event) => {
  event.preventDefault();
  document.body.classList.remove('dropping');
  for (const file of event.dataTransfer.files) sendFile(file);
});

addEventListener('paste', (event) => {
  for (const file of event.clipboardData.files) sendFile(file);
});

// Who is typing

const typing = new Map(); // name -> timer that ends it
let saidTyping = 0; // when we last said that we are typing; 0: we aren't
let idle;

function sayTyping(now) {
  clearTimeout(idle);
  if (now) idle = setTimeout(() => sayTyping(false), TYPING_EVERY);
  if (!inside || (now && Date.now() - saidTyping < TYPING_EVERY) || (!now && !saidTyping)) return;
  saidTyping = now ? Date.now() : 0;
  socket.emit('typing', now);
}

socket.on('typing', (news) => {
  if (!news.typing) return stopTyping(news.name);
  clearTimeout(typing.get(news.name));
  typing.set(news.name, setTimeout(() => stopTyping(news.name), TYPING_LASTS));
  showTyping();
});

function stopTyping(name) {
  clearTimeout(typing.get(name));
  typing.delete(name);
  showTyping();
}

function showTyping() {
  const names = [...typing.keys()];
  const line = $('typing');
  line.replaceChildren();
  if (!names.length) return;
  const dots = make('span', 'dots');
  dots.append(make('i'), make('i'), make('i'));
  const text = names.length === 1 ? `${names[0]} is typing`
    : names.length === 2 ? `${names[0]} and ${names[1]} are typing`
      : `${names.length} people are typing`;
  line.append(dots, text);
}

// The server's clock and the round trip

socket.on('tick', (tick) => {
  document.querySelector('.server').classList.add('live');
  $('clock').textContent = new Date(tick.time * 1000).toLocaleTimeString();
  const minutes = Math.floor(tick.uptime / 60);
  $('uptime').textContent = minutes ? `${minutes} min ${tick.uptime % 60} s` : `${tick.uptime} s`;
  $('online').textContent = `${tick.online} online`;
  for (const button of document.querySelectorAll('[data-room]')) {
    button.querySelector('.count').textContent = tick.rooms[button.dataset.room] || '';
  }
});

socket.on('probe', (answer) => answer()); // the server times how long this takes to get back

const trips = [];

socket.on('round_trip', ({ ms }) => {
  trips.push(ms);
  if (trips.length > 40) trips.shift();
  $('round-trip').textContent = `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
  // The newest is at the right edge; twice the median is the top, so that one slow trip doesn't flatten the rest.
  const top = 2 * [...trips].sort((a, b) => a - b)[Math.floor(trips.length / 2)];
  const points = trips.map((trip, index) => `${96 - (trips.length - 1 - index) * (96 / 39)},${27 - Math.min(trip / top, 1) * 26}`);
  $('spark').querySelector('polyline').setAttribute('points', points.join(' '));
});

// A reloaded page comes in again by itself.
const before = sessionStorage.getItem('name');
if (before) {
  $('name').value = before;
  comeIn(before, sessionStorage.getItem('room') || document.querySelector('[name=room]').value);
} else {
  $('name').focus();
}
