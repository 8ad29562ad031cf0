// http2 serve HOST:PORT | use HOST:PORT: an HTTP/2 server, and twenty streams to it by one connection.
package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"math/big"
	"net/http"
	"os"
	"sync"
	"time"
)

func certificate() tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		log.Fatal(err)
	}
	template := x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, &key.PublicKey, key)
	if err != nil {
		log.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func serve(address string) {
	answer := func(writer http.ResponseWriter, request *http.Request) {
		io.Copy(writer, request.Body)
	}
	config := &tls.Config{Certificates: []tls.Certificate{certificate()}}
	server := http.Server{Addr: address, Handler: http.HandlerFunc(answer), TLSConfig: config}
	log.Fatal(server.ListenAndServeTLS("", ""))
}

type zeros struct{ left int64 }

func (z *zeros) Read(to []byte) (int, error) {
	if z.left == 0 {
		return 0, io.EOF
	}
	n := min(int64(len(to)), z.left)
	z.left -= n
	return int(n), nil
}

func min(a, b int64) int64 {
	if a < b {
		return a
	}
	return b
}

func use(address string) {
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}
	client := http.Client{Transport: transport}
	var all sync.WaitGroup
	var lock sync.Mutex
	var total int64
	protocol := ""
	for n := 0; n < 20; n++ {
		all.Add(1)
		go func() {
			defer all.Done()
			response, err := client.Post("https://"+address, "application/octet-stream", &zeros{400000})
			if err != nil {
				log.Fatal(err)
			}
			got, err := io.Copy(io.Discard, response.Body)
			if err != nil {
				log.Fatal(err)
			}
			lock.Lock()
			total += got
			protocol = response.Proto
			lock.Unlock()
		}()
	}
	all.Wait()
	fmt.Println(protocol, total, "20 streams")
}

func main() {
	if os.Args[1] == "serve" {
		serve(os.Args[2])
	}
	use(os.Args[2])
}
