// Child processes, files, timers, streams and a server on a Unix socket.
const { execFile, execFileSync, fork, spawn, spawnSync } = require('child_process');
const fs = require('fs'), net = require('net'), zlib = require('zlib'), crypto = require('crypto'), path = require('path');
if (process.argv[2] === 'child') { process.on('message', (m) => { process.send(m * 2); process.disconnect(); }); return; }
(async () => {
  console.log(execFileSync('echo', ['sync']).toString().trim(), spawnSync('sh', ['-c', 'exit 5']).status);
  console.log(await new Promise((r) => execFile('seq', ['3'], (e, out) => r(out.split('\n')))));
  const cat = spawn('cat'); let text = ''; cat.stdout.on('data', (d) => { text += d; }); cat.stdin.end('through');
  await new Promise((r) => cat.on('close', r)); console.log(text);
  const kid = fork(__filename, ['child']); console.log(await new Promise((r) => { kid.on('message', r); kid.send(21); }));
  const slow = spawn('sleep', ['60']); slow.kill(); console.log(await new Promise((r) => slow.on('exit', (c, s) => r(s))));
  fs.writeFileSync('f', 'x'.repeat(100000)); await fs.promises.rename('f', 'g'); console.log((await fs.promises.stat('g')).size, fs.readdirSync('.'));
  await new Promise((r) => fs.createReadStream('g').pipe(zlib.createGzip()).pipe(fs.createWriteStream('g.gz')).on('finish', r)); console.log(zlib.gunzipSync(fs.readFileSync('g.gz')).length);
  console.log(crypto.createHash('sha256').update('a').digest('hex').slice(0, 16), crypto.randomBytes(8).length, crypto.pbkdf2Sync('p', 's', 1000, 8, 'sha1').toString('hex'));
  const server = net.createServer((c) => c.pipe(c)).listen(path.resolve('sock')); await new Promise((r) => server.on('listening', r));
  const c = net.connect(path.resolve('sock')); c.write('echo'); console.log((await new Promise((r) => c.once('data', r))).toString()); c.end(); server.close();
  const t = Date.now(); await new Promise((r) => setTimeout(r, 50)); console.log(Date.now() - t >= 49); setImmediate(() => console.log('immediate')); process.on('exit', (x) => console.log('exit', x));
})();
