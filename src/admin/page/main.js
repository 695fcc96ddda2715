// Asks the proxy again and again, and shows what it says.

const POLL_MS = 2000;
const PATIENCE_MS = 5000;
const CONTENTS_MS = 10000;

const memory = { status: null, samples: [], events: [], instance: null, silentSince: null, asking: false, contents: null, contentsAt: 0 };

async function ask(page) {
  const answer = await fetch(page, { cache: 'no-store', signal: AbortSignal.timeout(PATIENCE_MS) });
  if (!answer.ok) throw new Error(`it answered ${answer.status}`);
  return answer.json();
}

/** One look at the proxy. */
async function look() {
  const since = memory.samples.at(-1)?.at_ms ?? 0;
  const [status, history] = await Promise.all([ask('status'), ask(`history?since=${since}`)]);
  if (memory.instance !== status.instance) {
    Object.assign(memory, { instance: status.instance, samples: [] });
    // Those from before the one we knew are missing in what came.
    if (since > 0) history.samples = (await ask('history')).samples;
  }
  const known = memory.samples.at(-1)?.at_ms ?? 0;
  const fresh = history.samples.filter((sample) => sample.at_ms > known);
  const oldest = status.now_ms - WINDOW_MS - 10000;
  memory.samples = [...memory.samples, ...fresh].filter((sample) => sample.at_ms > oldest);
  if (Date.now() - memory.contentsAt > CONTENTS_MS) Object.assign(memory, { contents: await ask('contents'), contentsAt: Date.now() });
  Object.assign(memory, { status, events: history.events, silentSince: null });
}

function showAll() {
  const { status, samples, events } = memory;
  rankBackends(status.backends);
  judge(status);
  showTiles(status, samples);
  showRing(status);
  showCharts(samples, status.backends, status.now_ms);
  showMoves(status);
  showBackends(status, samples);
  showEvents(events);
  showApplications(status.applications);
  showContents(memory.contents);
  showReload(status.last_reload, status.map_version);
  showPeers(status.peers, status.map_version);
  show(byId('facts'), [status.host, status.listen, status.map_version, status.version, duration(status.now_ms - status.started_ms)], ([host, listen, map, version, up]) => [
    html('span', {}, 'proxy ', html('b', {}, host), ` at ${listen}`), html('span', {}, `map version ${map}`), html('span', {}, `staterouter ${version}`), html('span', {}, `up ${up}`)]);
  text(byId('updated'), `updated ${clockFormat.format(new Date())}`);
  document.body.classList.remove('silent');
}

/** Says that nothing more is known, and since when. */
function showSilence(error) {
  memory.silentSince ??= new Date();
  const since = clockFormat.format(memory.silentSince);
  const reason = error.name === 'TimeoutError' ? `no answer within ${PATIENCE_MS / 1000} s` : error.message;
  const seen = memory.status
    ? [{ level: 'bad', says: `What is shown below is from ${moment(memory.status.now_ms)}`, times: '', advice: [] }]
    : [];
  showVerdict('bad', `The proxy does not answer since ${since}`, [...seen, { level: 'bad', says: `Asked every ${POLL_MS / 1000} s: ${reason}`, times: '', advice: [] }]);
  text(byId('updated'), `silent since ${since}`);
  document.body.classList.add('silent');
}

async function poll() {
  if (memory.asking) return;
  memory.asking = true;
  try {
    await look();
  } catch (error) {
    showSilence(error);
    return;
  } finally {
    memory.asking = false;
  }
  showAll();
}

beginCharts();
setInterval(poll, POLL_MS);
document.addEventListener('visibilitychange', () => { if (!document.hidden) poll(); });
poll();
