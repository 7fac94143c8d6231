// Command anthropic-oauth-proxy forwards Anthropic API requests and adds the beta flag that OAuth tokens need, for
// gateways that cannot add headers. With no arguments and no file it serves 127.0.0.1:8080 for https://api.anthropic.com.
//
// flags.go has the flags and the exit codes.
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	if !signal.Ignored(syscall.SIGHUP) { // nohup ignores it
		signal.Notify(signals, syscall.SIGHUP)
	}
	signal.Ignore(syscall.SIGPIPE) // the log's reader may end
	os.Exit(run(signals, os.Args[1:], os.Getenv, os.Stdout, os.Stderr))
}
