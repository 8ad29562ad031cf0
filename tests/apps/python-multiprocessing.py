# multiprocessing: pools, queues, pipes, locks and values in shared memory; fork and spawn.
import multiprocessing as mp, os
from multiprocessing import shared_memory

def square(x): return x * x
def fill(q, lock, value):
    for i in range(50):
        with lock: value.value += 1
    q.put("done")
def talk(conn): conn.send([conn.recv(), {"a": 1}]); conn.close()

if __name__ == "__main__":
    mp.set_start_method("fork")
    with mp.Pool(3) as pool: print(sum(pool.map(square, range(500), chunksize=7)))
    q, lock, value = mp.Queue(), mp.Lock(), mp.Value("i", 0)
    ps = [mp.Process(target=fill, args=(q, lock, value)) for _ in range(4)]
    [p.start() for p in ps]; print([q.get(timeout=20) for _ in ps]); [p.join() for p in ps]; print(value.value, [p.exitcode for p in ps])
    a, b = mp.Pipe(); p = mp.Process(target=talk, args=(b,)); p.start(); a.send("hi"); print(a.recv()); p.join()
    m = shared_memory.SharedMemory(create=True, size=1000); m.buf[0] = 42
    n = shared_memory.SharedMemory(m.name); print(n.buf[0]); n.close(); m.close(); m.unlink()
    p = mp.Process(target=os._exit, args=(3,)); p.start(); p.join(); print(p.exitcode)
    with mp.get_context("spawn").Pool(1) as pool: print(pool.apply(square, (9,)))
