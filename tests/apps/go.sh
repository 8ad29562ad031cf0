# Go: a static program compiled and run: goroutines, channels, processes, signals, files.
# needs: go
# limit: 300
set -e
export HOME=$PWD GOCACHE=$PWD/cache GO111MODULE=off GOFLAGS=-p=2
cat >main.go <<'G'
package main

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"sort"
	"sync"
	"syscall"
	"time"
)

func main() {
	var group sync.WaitGroup
	results := make(chan int, 64)
	for i := 0; i < 64; i++ {
		group.Add(1)
		go func(n int) {
			defer group.Done()
			sum := 0
			for j := 0; j < 100000; j++ {
				sum += j % (n + 1)
				if j%10000 == 0 {
					runtime.Gosched()
				}
			}
			results <- sum
		}(i)
	}
	group.Wait()
	close(results)
	var all []int
	for sum := range results {
		all = append(all, sum)
	}
	sort.Ints(all)
	fmt.Println(len(all), all[0], all[63])
	for i := 0; i < 10; i++ {
		out, err := exec.Command("echo", "child", fmt.Sprint(i)).Output()
		fmt.Print(string(out), err == nil, "\n")
	}
	fmt.Println(exec.Command("sh", "-c", "exit 3").Run())
	caught := make(chan os.Signal, 1)
	signal.Notify(caught, syscall.SIGUSR1)
	syscall.Kill(os.Getpid(), syscall.SIGUSR1)
	fmt.Println(<-caught)
	select {
	case <-time.After(20 * time.Millisecond):
		fmt.Println("timer")
	}
	os.WriteFile("file", []byte("text"), 0600)
	data, _ := os.ReadFile("file")
	_, err := os.ReadFile("none")
	fmt.Println(string(data), err)
	// Ends a goroutine that spins without calls: preemption by signals.
	go func() {
		for {
		}
	}()
	time.Sleep(10 * time.Millisecond)
	runtime.GC()
	fmt.Println("collected")
}
G
go build -o program main.go && ./program
