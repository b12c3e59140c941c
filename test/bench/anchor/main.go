// Command anchor measures etcd's locks, for the bench to set ours beside: acquire and release of Mutexes of
// go.etcd.io/etcd/client/v3/concurrency by many workers, each on its own key, through a few clients with one session
// each. It is a module of its own, so that etcd's client is no dependency of Farrier.
//
// Usage: anchor -identity DIR -endpoints a,b,c -workers N -seconds S. DIR has key.pem, cert.pem and ca.pem;
// without -identity there is no TLS. It prints one JSON object.
package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

func main() {
	endpoints := flag.String("endpoints", "127.0.0.1:2379", "client URLs")
	identity := flag.String("identity", "", "directory of the client's certificate")
	workers := flag.Int("workers", 256, "concurrent lock pairs")
	clients := flag.Int("clients", 8, "connections, each with one session")
	seconds := flag.Float64("seconds", 5, "how long")
	flag.Parse()
	if err := run(*identity, strings.Split(*endpoints, ","), *workers, *clients, time.Duration(*seconds*float64(time.Second))); err != nil {
		fmt.Fprintln(os.Stderr, "anchor:", err)
		os.Exit(1)
	}
}

func run(identity string, endpoints []string, workers, clients int, d time.Duration) error {
	var secure *tls.Config
	if identity != "" {
		var err error
		if secure, err = (transport.TLSInfo{
			KeyFile: filepath.Join(identity, "key.pem"), CertFile: filepath.Join(identity, "cert.pem"), TrustedCAFile: filepath.Join(identity, "ca.pem"),
		}).ClientConfig(); err != nil {
			return err
		}
	}
	var sessions []*concurrency.Session
	for range min(clients, workers) {
		c, err := clientv3.New(clientv3.Config{Endpoints: endpoints, DialTimeout: 5 * time.Second, TLS: secure})
		if err != nil {
			return err
		}
		defer c.Close()
		s, err := concurrency.NewSession(c, concurrency.WithTTL(60))
		if err != nil {
			return err
		}
		defer s.Close() // its lease would keep the last locks from the next run
		sessions = append(sessions, s)
	}
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	var pairs atomic.Uint64
	lat := make([][]time.Duration, workers)
	var wg sync.WaitGroup
	start := time.Now()
	for w := range workers {
		wg.Go(func() {
			m := concurrency.NewMutex(sessions[w%len(sessions)], fmt.Sprintf("/lock/node-%d/", w))
			for ctx.Err() == nil {
				t := time.Now()
				if m.Lock(ctx) != nil || m.Unlock(context.WithoutCancel(ctx)) != nil { // what was taken is released
					return
				}
				pairs.Add(1)
				lat[w] = append(lat[w], time.Since(t))
			}
		})
	}
	wg.Wait()
	took := time.Since(start)
	all := slices.Concat(lat...)
	slices.Sort(all)
	if len(all) == 0 {
		return fmt.Errorf("no pair was finished in %v", d)
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]any{"pairs": pairs.Load(), "per_second": float64(pairs.Load()) / took.Seconds(),
		"p50_us": all[len(all)/2].Microseconds(), "p99_us": all[len(all)*99/100].Microseconds()})
}
