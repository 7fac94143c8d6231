package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/basher83/anthropic-oauth-proxy/internal/config"
	"github.com/basher83/anthropic-oauth-proxy/internal/doctor"
	"github.com/basher83/anthropic-oauth-proxy/internal/metrics"
	"github.com/basher83/anthropic-oauth-proxy/internal/proxy"
	"github.com/basher83/anthropic-oauth-proxy/internal/server"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// run is the program. Its arguments, environment and streams are parameters. It returns the exit code.
func run(signals <-chan os.Signal, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	flags, err := parseFlags(args, stdout)
	if err != nil {
		fmt.Fprintln(stderr, err)
		return exitUsage
	}
	if flags.help {
		return exitOK
	}
	if flags.version {
		fmt.Fprintln(stdout, version())
		return exitOK
	}
	cfg, err := config.Load(flags.given, getenv)
	if err != nil {
		fmt.Fprintln(stderr, err)
		return exitUsage
	}
	log := newAsyncLog(stderr, cfg.LogLevel)
	for _, warning := range cfg.Warnings {
		log.logger.Warn(warning)
	}
	var code int
	switch {
	case flags.printConfig || flags.check:
		code = show(cfg, flags, stdout, stderr)
	case flags.doctor:
		code = examine(signals, cfg.Upstream, stdout)
	default:
		code = serve(signals, cfg, log)
	}
	wait := closeWait
	if code == exitInterrupted {
		wait = 100 * time.Millisecond // do not wait long for a log that nobody reads
	}
	log.Close(wait)
	return code
}

// show runs --check and --print-config.
func show(cfg config.Config, flags parsedFlags, stdout, stderr io.Writer) int {
	if flags.printConfig {
		text, err := cfg.TOML()
		if err != nil {
			fmt.Fprintln(stderr, err)
			return exitFailure
		}
		stdout.Write(text)
		return exitOK
	}
	source := cfg.File
	if source == "" {
		source = "built-in defaults"
	}
	fmt.Fprintf(stdout, "configuration ok: %s\n", source)
	return exitOK
}

// examine runs --doctor. A signal ends it.
func examine(signals <-chan os.Signal, upstreamURL *url.URL, stdout io.Writer) int {
	healthy := make(chan bool, 1)
	go func() { healthy <- doctor.Run(context.Background(), upstreamURL, stdout) }()
	select {
	case ok := <-healthy:
		if !ok {
			return exitFailure
		}
		return exitOK
	case <-signals:
		return exitInterrupted
	}
}

// maxScrapes is how many scrapes of /metrics may run at once; more get 503.
const maxScrapes = 4

// serve wires the parts and serves until the first signal, then drains.
func serve(signals <-chan os.Signal, cfg config.Config, lines *asyncLog) int {
	logger := lines.logger
	logger.Info("initializing", "state", "initializing", "version", version(), "config", cfg.File, "upstream", cfg.Proxy.UpstreamURL)
	log.SetFlags(0)
	log.SetOutput(stdlibLog{logger})

	registry := prometheus.NewRegistry()
	m := metrics.New(registry, version(), metrics.Limits{
		MaxConnections:   cfg.Proxy.MaxConnections,
		MaxBufferedBytes: cfg.Proxy.MaxBufferedBytes,
	})
	var s *server.Server
	handler := proxy.New(proxy.Options{
		Upstream:         cfg.Upstream,
		Timeout:          time.Duration(cfg.Proxy.TimeoutSecs) * time.Second,
		Retries:          int(cfg.Proxy.Retries),
		MaxConnections:   int(cfg.Proxy.MaxConnections),
		MaxBodyBytes:     cfg.Proxy.MaxBodyBytes,
		MaxBufferedBytes: cfg.Proxy.MaxBufferedBytes,
		Rules:            rules(cfg.Headers),
		Logger:           logger,
		Draining:         func() bool { return s.Draining() },
	}, m)
	s = server.New(server.Options{
		Proxy:      handler,
		Metrics:    promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: maxScrapes}),
		NotAllowed: http.HandlerFunc(proxy.NotAllowed),
		Health: func() server.Counts {
			return server.Counts{RequestsServed: m.Served.Load(), ErrorsTotal: m.Errors.Load(), InFlight: m.InFlight.Load()}
		},
		MaxConns:    2 * int(cfg.Proxy.MaxConnections),
		Drain:       time.Duration(cfg.Proxy.DrainTimeoutSecs) * time.Second,
		AbortCause:  proxy.ErrDraining,
		Logger:      logger,
		ConnContext: proxy.WithConn,
		Bound:       lines.printNextSteps,
	})

	ctx, drain := context.WithCancel(context.Background())
	defer drain()
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, cfg.Proxy.ListenAddr) }()
	for interrupts, draining := 0, false; ; draining = true {
		select {
		case err := <-served:
			if err != nil {
				logger.Error("cannot serve", "error", cannotServe(err))
				return exitFailure
			}
			return exitOK
		case sig := <-signals:
			if sig == os.Interrupt {
				interrupts++
			}
			switch {
			case interrupts > 1: // a person at a terminal does not want to wait
				logger.Warn("second SIGINT: exiting now")
				return exitInterrupted
			case draining: // containerd sends SIGTERM again if it restarts meanwhile
				logger.Info("signal received again: still draining", "signal", sig.String())
			default:
				logger.Info("signal received", "signal", sig.String())
				drain()
			}
		}
	}
}

func rules(headers []config.Header) []proxy.Rule {
	rules := make([]proxy.Rule, len(headers))
	for i, h := range headers {
		rules[i] = proxy.Rule{Name: h.Name, Value: h.Value, Add: h.Mode == config.ModeAdd}
	}
	return rules
}
