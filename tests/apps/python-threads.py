# Threads: locks, conditions, events, queues, pools, thread-local data.
import concurrent.futures, queue, threading, time

total, lock = 0, threading.Lock()
def add():
    global total
    for _ in range(10000):
        with lock:
            total += 1
threads = [threading.Thread(target=add) for _ in range(8)]
[t.start() for t in threads]; [t.join() for t in threads]
print(total)

q, out = queue.Queue(maxsize=4), []
def worker():
    while (item := q.get()) is not None:
        with lock:
            out.append(item * item)
threads = [threading.Thread(target=worker) for _ in range(4)]
[t.start() for t in threads]
[q.put(i) for i in range(200)]; [q.put(None) for _ in threads]; [t.join() for t in threads]
print(sorted(out) == [i * i for i in range(200)])

barrier, event = threading.Barrier(3), threading.Event()
def meet():
    barrier.wait(); event.wait(); barrier.wait()
threads = [threading.Thread(target=meet) for _ in range(2)]
[t.start() for t in threads]; barrier.wait(); time.sleep(0.05); event.set(); barrier.wait(); [t.join() for t in threads]
print("met", event.wait(0), threading.Condition().acquire(timeout=1))
with concurrent.futures.ThreadPoolExecutor(5) as pool:
    print(sum(pool.map(len, ["x" * i for i in range(100)])))
lock.acquire(); start = time.monotonic()
print(lock.acquire(timeout=0.1), 0.09 < time.monotonic() - start < 30)
