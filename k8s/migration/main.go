// Command migration hands the tailnet name anthropic-oauth-proxy over from the sidecar's device to the device of the
// Tailscale Operator, without the name being gone for longer than one call to the Tailscale API. docs/migration.md is the
// runbook that goes with it.
//
// It keeps no state of its own: where things stand is read from the tailnet and the cluster each time, so a run that was
// interrupted, or that happened on another machine, is simply picked up by the next one. (The one thing that nobody else
// remembers, the time of the swap, is written as an annotation on the old Deployment.)
//
// A module of its own, with the standard library alone, so that neither the product nor its Nix package contains it and
// the whole folder can be deleted when the migration is over.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

const (
	bareName  = "anthropic-oauth-proxy"     // what clients call, and what moves
	oldParked = "anthropic-oauth-proxy-old" // what the sidecar's device is called after the swap
	namespace = "anthropic-oauth-proxy"
	oldObject = "anthropic-oauth-proxy" // the Deployment with the sidecar
	newObject = "oauth-proxy"           // Deployment and Service in k8s/
)

const usage = `usage: migration SUBCOMMAND [flags]

  preflight   look at everything the migration depends on; changes nothing
  status      who carries the name, how both pods are, what comes next; changes nothing
  swap        give the name to the operator's device; goes back by itself when anything fails
  rollback    give the name back to the sidecar's device
  cleanup     remove the old pod, its objects and its device; refuses while they are in use

The Tailscale API access token is read from the environment variable TS_API_KEY and from nowhere else.
Exit codes: 0 done, 1 refused or failed with everything as it was, 2 wrong usage, 3 a person is needed: read the last lines.

flags:
`

// An exit carries the code of a run that ended otherwise than well.
type exit struct {
	code int
	text string
}

func (e exit) Error() string { return e.text }

func refuse(format string, a ...any) error { return exit{1, fmt.Sprintf(format, a...)} }

// migration is one run: its settings and the worlds it talks to.
type migration struct {
	dryRun    bool
	force     bool
	noSignal  bool
	container string
	port      string
	watch     time.Duration

	api  tailscale
	kube kubectl
	dns  string
	out  io.Writer
}

func (m *migration) say(format string, a ...any) { fmt.Fprintf(m.out, format+"\n", a...) }

func main() {
	// `migration swap | tee log`: Ctrl-C ends tee as well, and a write to its closed pipe must not end the way back.
	signal.Ignore(syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop() // not before the end: further signals must not interrupt the way back

	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	if err == nil {
		return
	}
	code := 1
	if e, ok := errors.AsType[exit](err); ok {
		code = e.code
	}
	fmt.Fprintln(os.Stderr, "migration:", err)
	os.Exit(code)
}

func run(ctx context.Context, args []string, out, errOut io.Writer) error {
	verbs := map[string]func(*migration, context.Context) error{
		"preflight": (*migration).preflight,
		"status":    (*migration).status,
		"swap":      (*migration).swap,
		"rollback":  (*migration).rollback,
		"cleanup":   (*migration).cleanup,
	}
	m := &migration{out: out}
	flags := flag.NewFlagSet("migration", flag.ContinueOnError)
	flags.SetOutput(errOut)
	flags.Usage = func() { fmt.Fprint(errOut, usage); flags.PrintDefaults() }
	flags.BoolVar(&m.dryRun, "dry-run", false, "read everything, change nothing, print what would be done")
	flags.BoolVar(&m.force, "force", false, "swap: although the old pod is dead or in doubt")
	flags.BoolVar(&m.noSignal, "no-signal", false, "cleanup: delete without ending the old proxy process first")
	flags.StringVar(&m.container, "old-container", "", "cleanup: the proxy's container in the old pod (default: the one that is not tailscale)")
	flags.DurationVar(&m.watch, "watch", 0, "swap, rollback: how long the name may take to answer from its new device (default 20s);\ncleanup: how long the old pod must serve nothing while watched (default 60s)")
	flags.StringVar(&m.port, "port", "8080", "the port clients use")
	flags.StringVar(&m.dns, "resolver", "100.100.100.100:53", "DNS server asked for the name; MagicDNS itself, since this machine's own resolver caches\n(\"system\" uses that one nevertheless)")
	flags.StringVar(&m.api.tailnet, "tailnet", "-", "tailnet name; - is the token's own")
	flags.StringVar(&m.api.base, "api", "https://api.tailscale.com", "base URL of the Tailscale API")
	flags.StringVar(&m.kube.context, "context", "", "kubectl context (default: the current one)")

	names := "preflight, status, swap, rollback or cleanup"
	if len(args) == 0 || args[0] == "-h" || args[0] == "-help" || args[0] == "--help" || args[0] == "help" {
		flags.Usage()
		if len(args) > 0 {
			return nil
		}
		return exit{2, "no subcommand: give " + names}
	}
	verb, ok := verbs[args[0]]
	if !ok {
		return exit{2, fmt.Sprintf("%q is no subcommand: give %s first, flags after it", args[0], names)}
	}
	switch err := flags.Parse(args[1:]); {
	case errors.Is(err, flag.ErrHelp):
		return nil
	case err != nil:
		return exit{2, err.Error()}
	case flags.NArg() > 0:
		return exit{2, fmt.Sprintf("%q is one argument too many: %s takes flags only", flags.Arg(0), args[0])}
	}
	if err := m.check(flags, args[0]); err != nil {
		return exit{2, err.Error()}
	}
	if err := m.api.takeKey(); err != nil {
		return exit{2, err.Error()}
	}
	return verb(m, ctx)
}

// check refuses settings that would mean something else than their giver thinks.
func (m *migration) check(flags *flag.FlagSet, verb string) error {
	belongs := map[string]string{"force": "swap", "no-signal": "cleanup", "old-container": "cleanup", "watch": "swap, rollback, cleanup"}
	var wrong error
	flags.Visit(func(f *flag.Flag) {
		if to, ok := belongs[f.Name]; ok && !strings.Contains(to, verb) {
			wrong = fmt.Errorf("--%s belongs to %s, not to %s", f.Name, to, verb)
		}
	})
	if wrong != nil {
		return wrong
	}
	if m.watch < 0 {
		return fmt.Errorf("--watch %v: give a duration above zero, such as 30s", m.watch)
	}
	if m.watch > 0 && m.watch < 5*time.Second && verb != "cleanup" {
		return fmt.Errorf("--watch %v: give 5s or more, %v of answers in a row are waited for", m.watch, steady*probeEvery)
	}
	if m.watch == 0 {
		m.watch = 20 * time.Second
		if verb == "cleanup" {
			m.watch = 60 * time.Second
		}
	}
	if err := checkPort(m.port); err != nil {
		return err
	}
	if err := checkResolver(m.dns); err != nil {
		return err
	}
	return m.api.check()
}
