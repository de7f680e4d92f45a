// Go clients against the broker at BOOTSTRAP: segmentio/kafka-go and twmb/franz-go, by partition.
//
//	client test                       every check; ends with `N passed, N failed`
//	client groups                     groups and transactions of franz-go; ends likewise
//	client copy PROTOCOL NAME NUMBER  the copier of kills.sh
//	client write CLIENT TOPIC         the records of exchange.sh
//	client read CLIENT TOPIC...
package main

import (
	"context"
	"fmt"
	"os"
	"time"
)

var bootstrap = os.Getenv("BOOTSTRAP")

// One deadline for everything, so that nothing hangs.
const wholeRun = 180 * time.Second

var runName = fmt.Sprintf("%d-%d", time.Now().Unix(), os.Getpid())

var passed, failed int

// check runs one test; a panic counts as a failure of that test only.
func check(name string, body func() error) {
	err := func() (err error) {
		defer func() {
			if reason := recover(); reason != nil {
				err = fmt.Errorf("panic: %v", reason)
			}
		}()
		return body()
	}()
	if err != nil {
		failed++
		fmt.Printf("FAIL  %s: %v\n", name, err)
		return
	}
	passed++
	fmt.Printf("ok    %s\n", name)
}

// eventually asks again for up to ten seconds: Kafka answers an administrator before every broker has
// applied the change.
func eventually(ctx context.Context, question func() error) error {
	deadline := time.Now().Add(10 * time.Second)
	for {
		err := question()
		if err == nil || time.Now().After(deadline) || ctx.Err() != nil {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), wholeRun)
	defer cancel()
	if bootstrap == "" || len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "BOOTSTRAP and a command, please")
		os.Exit(2)
	}
	switch os.Args[1] {
	case "test", "groups":
		if os.Args[1] == "test" {
			testSegmentio(ctx)
			testFranz(ctx)
		} else {
			testGroups(ctx)
		}
		fmt.Printf("%d passed, %d failed\n", passed, failed)
		if failed > 0 || passed == 0 {
			os.Exit(1)
		}
	case "copy":
		if err := copyUntilKilled(os.Args[2], os.Args[3], os.Args[4]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	case "write", "read":
		if err := exchange(ctx, os.Args[1], os.Args[2], os.Args[3:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}
