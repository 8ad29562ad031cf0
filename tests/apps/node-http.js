// node's http over the loopback: keep-alive, streams, many at once, refusals.
const http = require('http'), net = require('net');
const server = http.createServer((req, res) => { let n = 0; req.on('data', d => n += d.length); req.on('end', () => res.end(`${req.method} ${req.url} ${n}`)); });
server.listen(0, '127.0.0.1', async () => {
  const port = server.address().port, agent = new http.Agent({ keepAlive: true, maxSockets: 8 });
  const ask = (path, body) => new Promise((ok, no) => { const r = http.request({ port, host: '127.0.0.1', path, agent, method: body ? 'POST' : 'GET' }, res => { let s = ''; res.on('data', d => s += d); res.on('end', () => ok(s)); }); r.on('error', no); r.end(body); });
  const all = await Promise.all(Array.from({ length: 100 }, (_, i) => ask('/' + i)));
  console.log(all.length, all[99], await ask('/big', Buffer.alloc(2000000, 'x')));
  agent.destroy();
  server.close(() => net.connect(port, '127.0.0.1').on('error', e => console.log(e.code)));
});
