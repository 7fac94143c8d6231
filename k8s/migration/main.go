// Command migration moves the tailnet name anthropic-oauth-proxy from the sidecar's device to the Tailscale Operator's device. The
// name is missing only for the time of one call to the Tailscale API. docs/migration.md is its runbook.
//
// It stores no state. Each run reads the current state from the tailnet and the cluster. So the next run continues after one that was
// interrupted, or that ran on another machine.
//
// It is a separate module, so that neither the product nor its Nix package contains it. Delete the whole folder when the migration is
// over.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	tailscale "tailscale.com/client/tailscale/v2"
)

const (
	bareName   = "anthropic-oauth-proxy"     // the name that clients use and that moves
	parkedName = "anthropic-oauth-proxy-old" // the name of the sidecar's device after the swap
	newName    = "anthropic-oauth-proxy-new" // the name of the operator's device after a rollback
	namespace  = "anthropic-oauth-proxy"
	oldObject  = "anthropic-oauth-proxy" // Deployment and Service with the sidecar
	newObject  = "oauth-proxy"           // Deployment and Service in k8s/
)

const usage = "usage: migration preflight|status|swap|rollback|cleanup [flags]   (--help explains them)"

const help = `usage: migration SUBCOMMAND [flags]

  preflight   look at everything the migration depends on; changes nothing
  status      who carries the name, who answers, what comes next; changes nothing, works without the cluster
  swap        give the name to the operator's device; goes back by itself when anything fails
  rollback    give the name back to the sidecar's device; works without the cluster
  cleanup     remove the old pod, its objects and its device, once nobody has used them for 15 minutes

The Tailscale API access token is read from the environment variable TS_API_KEY and from nowhere else.
Exit codes: 0 done, 1 refused or failed, and the names are as before, 2 wrong usage, 3 a person is needed: read the last lines.

flags:
`

// An exit is an error with an exit code.
type exit struct {
	code int
	text string
}

func (e exit) Error() string { return e.text }

func refuse(format string, a ...any) error { return exit{1, fmt.Sprintf(format, a...)} }

// migration is one run: its settings and its connections to tailnet and cluster.
type migration struct {
	dryRun      bool
	watch       time.Duration
	port, dns   string
	kubeContext string
	api         *tailscale.Client
	out         io.Writer
}

func (m *migration) say(format string, a ...any) { fmt.Fprintf(m.out, format+"\n", a...) }

func main() {
	// In `migration swap | tee log` Ctrl-C also ends tee. A write to the closed pipe must not stop the way back.
	signal.Ignore(syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop() // only at the end, because further signals must not interrupt the way back

	err := run(ctx, os.Args[1:], os.Stdout)
	if err == nil {
		return
	}
	code := 1
	if e, ok := errors.AsType[exit](err); ok {
		code = e.code
	}
	fmt.Fprintln(os.Stderr, "migration:", err)
	if code == 2 {
		fmt.Fprintln(os.Stderr, usage)
	}
	os.Exit(code)
}

func run(ctx context.Context, args []string, out io.Writer) error {
	verbs := map[string]func(*migration, context.Context) error{
		"preflight": (*migration).preflight,
		"status":    (*migration).status,
		"swap":      (*migration).swap,
		"rollback":  (*migration).rollback,
		"cleanup":   (*migration).cleanup,
	}
	var name string
	if len(args) > 0 && args[0] != "--help" && args[0] != "-h" {
		name, args = args[0], args[1:]
	}
	m := &migration{out: out}
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	flags.BoolVar(&m.dryRun, "dry-run", false, "change nothing, print what would be done")
	flags.DurationVar(&m.watch, "watch", 0, "swap, rollback: how long the name may take to answer from its new device (default 20s)\n"+
		"cleanup: how long the old pod must serve nothing (default 15m: resolvers keep its address for ten minutes);\n"+
		"if it still serves after that time, its proxy process is ended once, so that busy clients look the name up again")
	flags.StringVar(&m.port, "port", "8080", "the port clients use")
	flags.StringVar(&m.dns, "resolver", "100.100.100.100:53", "DNS server asked for the name: MagicDNS itself, since this machine's own resolver caches")
	flags.StringVar(&m.kubeContext, "context", "", "kubectl context (default: the current one)")
	api := flags.String("api", "https://api.tailscale.com", "base URL of the Tailscale API")
	flags.SetOutput(io.Discard) // main prints the error first, and one line of usage
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(out, help)
		flags.SetOutput(out)
		flags.PrintDefaults()
		return nil
	case err != nil:
		return exit{2, err.Error()}
	case verbs[name] == nil:
		return exit{2, fmt.Sprintf("unknown subcommand %q", name)}
	case flags.NArg() > 0:
		return exit{2, fmt.Sprintf("unexpected argument %q", flags.Arg(0))}
	}
	switch {
	case m.watch > 0:
	case name == "cleanup":
		m.watch = 15 * time.Minute
	default:
		m.watch = 20 * time.Second
	}
	if err := m.connect(*api); err != nil {
		return exit{2, err.Error()}
	}
	return verbs[name](m, ctx)
}
