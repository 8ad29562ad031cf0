# Java: a class compiled and run: threads, processes, files, collections and the collector.
# needs: java javac
# limit: 240
set -e
cat >Main.java <<'J'
import java.nio.file.*; import java.util.*; import java.util.concurrent.*; import java.util.stream.*;
public class Main {
  public static void main(String[] a) throws Exception {
    ExecutorService pool = Executors.newFixedThreadPool(8); List<Future<Integer>> all = new ArrayList<>();
    for (int i = 0; i < 20; i++) { int n = i; all.add(pool.submit(() -> n * n)); }
    int sum = 0; for (Future<Integer> f : all) sum += f.get(); pool.shutdown(); System.out.println(sum);
    Path p = Files.createTempFile(Path.of("."), "x", ".txt"); Files.writeString(p, "hello\n".repeat(1000)); System.out.println(Files.lines(p).count()); Files.delete(p);
    Process q = new ProcessBuilder("echo", "from java").start(); System.out.println(new String(q.getInputStream().readAllBytes()).trim() + " " + q.waitFor());
    List<byte[]> keep = new ArrayList<>(); for (int i = 0; i < 3000; i++) { byte[] b = new byte[100000]; if (i % 100 == 0) keep.add(b); } System.gc(); System.out.println(keep.size());
    System.out.println(IntStream.range(0, 100000).parallel().filter(x -> x % 7 == 0).count());
    try { Object o = null; o.toString(); } catch (NullPointerException e) { System.out.println("null"); }
    Thread t = new Thread(() -> { try { Thread.sleep(60000); } catch (InterruptedException e) { System.out.println("interrupted"); } }); t.start(); Thread.sleep(50); t.interrupt(); t.join(); System.exit(3);
  }
}
J
javac -J-Xmx256m Main.java; java -Xmx256m -XX:+UseSerialGC Main || echo "status $?"; java -Xmx256m Main || echo "status $?"
