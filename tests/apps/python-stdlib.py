# Much of the standard library imported and used a little: many files opened and mapped.
import base64, bz2, csv, ctypes, datetime, decimal, email, glob, gzip, hashlib, heapq, html, io, ipaddress, itertools, json, logging, lzma, math, pickle, platform, random, re, shelve, statistics, string, struct, textwrap, time, unicodedata, urllib.parse, uuid, xml.etree.ElementTree as et, zipfile, zlib
data = "".join(random.Random(1).choices(string.ascii_letters, k=50000)).encode()
for m in (gzip, bz2, lzma, zlib): print(m.__name__, m.decompress(m.compress(data)) == data)
print(hashlib.sha512(data).hexdigest()[:32], zlib.crc32(data), len(pickle.dumps(list(range(1000)))), json.loads(json.dumps({"a": [1, 2.5, None]})))
with zipfile.ZipFile("z.zip", "w", zipfile.ZIP_DEFLATED) as z: z.writestr("a/b", data)
print(zipfile.ZipFile("z.zip").read("a/b") == data, et.fromstring("<a><b c='d'/></a>")[0].attrib, platform.system(), platform.machine())
libc = ctypes.CDLL(None, use_errno=True); print(libc.strlen(b"four"), libc.getpid() > 0, ctypes.sizeof(ctypes.c_void_p)); f = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)(lambda x: x + 1); print(f(41))
with shelve.open("shelf") as s: s["k"] = [1]
with shelve.open("shelf") as s: print(s["k"])
print(sum(1 for _ in open("/usr/share/common-licenses/GPL-3", encoding="utf-8")), len(glob.glob("/usr/share/common-licenses/*GPL*")), statistics.mean(range(100)), decimal.Decimal(1) / 7, math.factorial(30), re.sub(r"(\w)\1", r"<\1>", "aabbcd"), datetime.date(2024, 2, 29).isoformat(), time.strftime("%F", time.gmtime(0)), len(uuid.uuid4().hex))
