# Mappings: of files, shared between processes, and memory in bulk.
import mmap, os, array
with open("f", "w+b") as f:
    f.truncate(100000)
    with mmap.mmap(f.fileno(), 0) as m:
        m[0:5] = b"hello"; m[99995:] = b"world"; m.flush(); print(len(m), m.find(b"world"))
        f.seek(0); print(f.read(5)); f.seek(50000); f.write(b"mid"); f.flush(); print(m[50000:50003])
with open("f", "rb") as f, mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ) as m:
    print(m[:5], m[-5:])
with open("f", "rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_COPY) as m:
    m[0:1] = b"J"; print(m[:5], open("f", "rb").read(5))
shared, private = mmap.mmap(-1, 8192), mmap.mmap(-1, 8192, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
pid = os.fork()
if pid == 0:
    shared[:3] = b"kid"; private[:3] = b"kid"; os._exit(0)
os.waitpid(pid, 0); print(shared[:3], private[:3])
m = mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS); m.resize(40960); m[40000] = 7; print(len(m), m[40000])
big = array.array("Q", bytes(64 << 20)); big[-1] = 5; print(len(big), big[-1], sum(big[:: 4096 // 8]))
data = bytearray(); [data.extend(b"x" * 10000) for _ in range(2000)]; print(len(data))
with open("/usr/bin/env", "rb") as f, mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ) as m:
    print(m[:4])
