// Worker threads, shared memory and atomics.
const { Worker, isMainThread, parentPort, workerData } = require('worker_threads');
if (isMainThread) {
  const shared = new SharedArrayBuffer(8), sum = new Int32Array(shared);
  const work = (i) => new Promise((done, fail) => {
    const w = new Worker(__filename, { workerData: { i, shared } });
    w.on('message', done); w.on('error', fail);
  });
  Promise.all([1, 2, 3, 4].map(work)).then((all) => { console.log(all, sum[0], Atomics.load(sum, 1)); });
} else {
  const sum = new Int32Array(workerData.shared);
  for (let k = 0; k < 10000; k++) Atomics.add(sum, 0, workerData.i);
  Atomics.add(sum, 1, 1); Atomics.notify(sum, 1);
  parentPort.postMessage(workerData.i * 10);
}
