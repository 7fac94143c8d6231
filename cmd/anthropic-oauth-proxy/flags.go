package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
)

// The exit codes (contract section 6).
const (
	exitOK          = 0
	exitFailure     = 1
	exitUsage       = 2
	exitInterrupted = 130 // the usual code after SIGINT
)

// parsedFlags is the parsed command line.
type parsedFlags struct {
	given                                     map[string]string // the settings on the command line, by name
	check, doctor, printConfig, version, help bool
}

const usage = `Usage: anthropic-oauth-proxy [flags]

Forwards Anthropic API requests and adds the beta flag that OAuth tokens need.
Without a file it listens on 127.0.0.1:8080 and forwards to https://api.anthropic.com.

`

const afterFlags = `
All other settings are in the file; the README lists them. HTTPS_PROXY, NO_PROXY and SSL_CERT_FILE work as in any Go program.

Ctrl-C (or SIGTERM, SIGHUP) drains: running answers may finish, and no new connections are accepted. A second Ctrl-C exits at once.
Exit codes: 0 after a drain, 1 if it cannot start or serve (or --doctor found a fault), 2 for wrong flags or configuration, 130 after
a second Ctrl-C or when --doctor is interrupted.
`

// parseFlags reads the command line; --help prints the usage to stdout.
func parseFlags(args []string, stdout io.Writer) (parsedFlags, error) {
	p := parsedFlags{given: map[string]string{}}
	var out bytes.Buffer
	set := flag.NewFlagSet("anthropic-oauth-proxy", flag.ContinueOnError)
	set.SetOutput(&out)
	set.Usage = func() {}
	set.String("config", "", "configuration `file` (default $CONFIG_PATH, else ./anthropic-oauth-proxy.toml if it exists)")
	set.String("listen", "", "`address` to listen on, host:port")
	set.String("upstream", "", "`URL` to forward to")
	set.String("log-level", "", "`level`: debug, info, warn or error (default $LOG_LEVEL, else info)")
	set.BoolVar(&p.check, "check", false, "check the configuration and exit")
	set.BoolVar(&p.doctor, "doctor", false, "test the connection to the upstream, without credentials, and exit")
	set.BoolVar(&p.printConfig, "print-config", false, "print the effective configuration as TOML and exit")
	set.BoolVar(&p.version, "version", false, "print the version and exit")
	err := set.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		out.Reset()
		out.WriteString(usage)
		set.PrintDefaults()
		out.WriteString(afterFlags)
		io.WriteString(stdout, strings.ReplaceAll(out.String(), "\n  -", "\n  --"))
		return parsedFlags{help: true}, nil
	}
	if err != nil {
		err = explain(err.Error(), args, set)
	} else {
		err = p.validate(set)
	}
	if err != nil {
		return parsedFlags{}, fmt.Errorf("%w; --help lists the flags", err)
	}
	return p, nil
}

// explain rewrites an error of the flag package, which writes every flag with one dash.
func explain(text string, args []string, set *flag.FlagSet) error {
	if name, ok := strings.CutPrefix(text, "flag needs an argument: -"); ok {
		return fmt.Errorf("--%s needs a value", name)
	}
	name, ok := strings.CutPrefix(text, "flag provided but not defined: -")
	if !ok {
		return errors.New(strings.Replace(text, " for -", " for --", 1))
	}
	if slices.ContainsFunc(args, func(arg string) bool { return arg == "--"+name || strings.HasPrefix(arg, "--"+name+"=") }) {
		text = strings.Replace(text, ": -", ": --", 1)
	}
	set.VisitAll(func(f *flag.Flag) {
		if strings.HasPrefix(f.Name, name) {
			text += ", did you mean --" + f.Name + "?"
		}
	})
	return errors.New(text)
}

// validate finds mistakes that the flag package accepts, and records the settings that were given.
func (p parsedFlags) validate(set *flag.FlagSet) (err error) {
	set.Visit(func(f *flag.Flag) {
		switch f.Name {
		case "config", "listen", "upstream", "log-level":
			value := f.Value.String()
			p.given[f.Name] = value
			if value == "" || value[0] == '-' { // another flag
				err = fmt.Errorf("--%s needs a value, not %q", f.Name, value)
			}
		}
	})
	switch {
	case err != nil:
		return err
	case set.NArg() > 0:
		return fmt.Errorf("unexpected argument %q: there are only flags", set.Arg(0))
	case p.doctor && (p.check || p.printConfig):
		return errors.New("--doctor cannot be combined with --check or --print-config; it checks the configuration first")
	}
	return nil
}

// cannotServe returns the text of an error that ended serving. If the address cannot be used, it says how to choose another.
func cannotServe(err error) string {
	var opErr *net.OpError
	if errors.As(err, &opErr) && opErr.Op == "listen" {
		return err.Error() + ": choose another address with --listen, or listen_addr in the file"
	}
	return err.Error()
}
