// What fills the servers: items by application.

const APPS_SHOWN = 4;
const ITEMS_SHOWN = 6;

function drawItem({ name, percent, sessions_percent: inSessions, mean_bytes: mean }) {
  return html('li', { title: `in ${inSessions} % of the sessions, ${bytes(mean)} each` },
    html('span', { class: 'main name' }, name || '(no name)'), html('span', { class: 'badge', 'data-level': 'rest' }, `${percent} %`),
    html('span', { class: 'more' }, `${bytes(mean)} in ${inSessions} % of the sessions`));
}

function drawApp(app) {
  const notes = [[app.compressed, 'compressed'], [app.not_understood, 'not understood'], [app.too_long, 'with too many names']]
    .filter(([sessions]) => sessions > 0).map(([sessions, what]) => `${plural(sessions, 'session')} ${what}`);
  return [
    html('p', { class: 'summary' }, html('b', { class: 'name' }, app.name || '(no application)'), ` ${app.percent} % of the bytes, ${bytes(app.mean_bytes)} per session`),
    app.items.length > 0 ? html('ul', { class: 'peers' }, ...app.items.slice(0, ITEMS_SHOWN).map(drawItem)) : undefined,
    notes.length > 0 ? html('p', { class: 'quiet' }, `${notes.join(', ')}.`) : undefined,
  ].filter(Boolean);
}

function showContents(contents) {
  show(byId('contents'), contents, (report) => {
    if (!report) return html('p', { class: 'empty' }, 'Asking the proxy.');
    if (!report.on) return html('p', { class: 'empty' }, 'Bodies are not looked into (contents: off).');
    if (report.sessions === 0) return html('p', { class: 'empty' }, 'No session has been stored yet that was looked into.');
    const from = report.one_in === 1 ? '' : `, one in ${count(report.one_in)}`;
    return [...report.applications.slice(0, APPS_SHOWN).flatMap(drawApp),
      html('p', { class: 'quiet' }, `From ${plural(report.sessions, 'session')}${from}.`)];
  });
}
