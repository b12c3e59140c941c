package main

import (
	"context"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"

	"github.com/farrier-project/farrier/ramdisk-agent/image"
	"github.com/farrier-project/farrier/ramdisk-agent/pid1"
	"github.com/farrier-project/farrier/ramdisk-agent/session"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	args, first := os.Args[1:], ""
	if len(args) > 0 {
		first = args[0]
	}
	if os.Getpid() == 1 && first != "image" && first != "version" { // a container's first process may be those
		pid1.Main() // never returns
	}
	var code int
	switch first {
	case pid1.Stage2:
		code = session.Stage2(ctx, os.Stdout, os.Stderr)
	case "image":
		code = image.Command(args[1:], os.Stdout, os.Stderr)
	default:
		code = session.Command(ctx, args, os.Stdin, os.Stdout, os.Stderr)
	}
	stop()
	os.Exit(code)
}
