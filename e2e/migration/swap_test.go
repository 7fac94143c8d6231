package migration

import (
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/poll"
)

const (
	parkOld   = "rename " + oldID + " to " + bare + "-old"
	giveNew   = "rename " + newID + " to " + bare
	unparkNew = "rename " + newID + " to " + bare + "-1"
	giveOld   = "rename " + oldID + " to " + bare
)

// names checks what both devices are called.
func (w *world) names(old, now string) {
	w.t.Helper()
	assert.Equal(w.t, w.name(oldID), bare+old)
	assert.Equal(w.t, w.name(newID), bare+now)
}

func (w *world) wrote(calls ...string) {
	w.t.Helper()
	assert.DeepEqual(w.t, w.writes(), calls)
	w.secret()
}

func TestSwap(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.run("swap").says(t, 0,
		"both names are set; nobody had the name for about ",
		"ok    anthropic-oauth-proxy.tail1234.ts.net now leads to "+newIP,
		"measured: ", " probes of the name, ", "run cleanup in 15 minutes or later")
	w.wrote(parkOld, giveNew)
	w.names("-old", "")
	written := w.cluster.changed()
	assert.Equal(t, len(written), 1)
	at, err := time.Parse(time.RFC3339, strings.TrimPrefix(written[0], "annotate deployment "+bare+" "+swappedAt+"="))
	assert.NilError(t, err, written[0])
	assert.Assert(t, time.Since(at) < time.Minute)

	w.run("swap").says(t, 0, "nothing to do: the operator's device carries the name")
	w.run("preflight").says(t, 0, "Nothing is left to prepare")
	w.run("status").says(t, 0, "swapped     20", "next: cleanup")
	w.wrote(parkOld, giveNew)
}

// missed waits until so many look-ups found nobody with the name; a probe makes two, for IPv4 and IPv6.
func (w *world) missed(n int) {
	w.t.Helper()
	poll.WaitOn(w.t, func(poll.LogT) poll.Result {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.misses >= n {
			return poll.Success()
		}
		return poll.Continue("%d look-ups missed the name", w.misses)
	}, poll.WithTimeout(30*time.Second), poll.WithDelay(10*time.Millisecond))
}

// While the second call takes its time, clients miss the name: that is counted and measured.
func TestSwapMeasuresTheGap(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	came, release := w.held(giveNew)
	r := w.start("swap")
	r.reached(came)
	begin := time.Now()
	w.missed(8)
	held := time.Since(begin)
	release()
	res := r.wait()
	res.says(t, 0, "now leads to "+newIP)
	found := regexp.MustCompile(`nobody had the name for about (\S+), for (\S+) at most\n[^$]*, (\d+) without an answer; silent for at most (\S+)\n`).FindStringSubmatch(res.out)
	assert.Assert(t, len(found) == 5, "%s", res.out)
	about, err := time.ParseDuration(found[1])
	assert.NilError(t, err)
	most, err := time.ParseDuration(found[2])
	assert.NilError(t, err)
	silent, err := time.ParseDuration(found[4])
	assert.NilError(t, err)
	missed, err := strconv.Atoi(found[3])
	assert.NilError(t, err)
	const rounding = time.Millisecond
	assert.Assert(t, about+rounding >= held && most+rounding >= about && silent+rounding >= held, "held for %v: %v", held, found[1:])
	assert.Assert(t, missed >= 3, "%v", found[1:])
}

func TestSwapDryRun(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.run("swap", "--dry-run").says(t, 0,
		"would rename "+bare+" ("+oldID+", "+oldIP+", tag:proxy, online) to "+bare+"-old",
		"would rename "+bare+"-1 ("+newID+", "+newIP+", tag:k8s, online) to "+bare,
		"would probe")
	w.untouched()
	w.run("rollback", "--dry-run").says(t, 0, "nothing to do")
	w.swapped(time.Hour).run("rollback", "--dry-run").says(t, 0, "would rename "+bare+" ("+newID, "to "+bare+"-1")
	w.untouched()
}

func TestSwapWithoutAnOldPodToGoBackTo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.oldServer.dies()
	w.cluster.gone("pod/old-1")
	w.run("swap").says(t, 1, "FAIL  the device with the name", "FAIL  deployment/", "not swapped")
	came, release := w.held(giveNew)
	r := w.start("swap", "--force")
	r.reached(came)
	w.missed(4)
	release()
	res := r.wait()
	res.says(t, 0, "note  the device with the name", "now leads to "+newIP)
	w.wrote(parkOld, giveNew)
	silent := regexp.MustCompile(`silent for at most (\S+)`).FindStringSubmatch(res.out)
	assert.Assert(t, len(silent) == 2, res.out)
	d, err := time.ParseDuration(silent[1])
	assert.NilError(t, err)
	assert.Assert(t, d > 100*time.Millisecond && d < time.Minute, "since the first probe, for want of a good one: %v", d)
}

// Whatever fails, the names are as they were in the end, and exactly these calls were made.
func TestSwapFails(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		change func(*world)
		calls  []string
		says   string
		flags  []string
	}{
		"the first call is refused": {func(w *world) { w.fail(&fault{call: parkOld, status: 403, body: `{"message":"no"}`}) },
			[]string{parkOld + ": 403"}, "devices:core (write)", nil},
		"the first call is one too many": {func(w *world) { w.fail(&fault{call: parkOld, status: 429}) },
			[]string{parkOld + ": 429"}, "too many calls", nil},
		"the first call fails": {func(w *world) { w.fail(&fault{call: parkOld, status: 500}) },
			[]string{parkOld + ": 500"}, "a fault on Tailscale's side", nil},
		"the first device is gone": {func(w *world) { w.fail(&fault{call: parkOld, status: 404, body: `{"message":"no such device"}`}) },
			[]string{parkOld + ": 404"}, "the device is gone", nil},
		"the first call fails, but was done": {func(w *world) { w.fail(&fault{call: parkOld, status: 502, after: true}) },
			[]string{parkOld + ": 502", giveOld}, "answers 502", nil},
		"the first answer is lost": {func(w *world) { w.fail(&fault{call: parkOld, after: true}) },
			[]string{parkOld + ": 0", giveOld}, "EOF", nil},
		"the second call is refused": {func(w *world) { w.fail(&fault{call: giveNew, status: 403}) },
			[]string{parkOld, giveNew + ": 403", giveOld}, "devices:core (write)", nil},
		"the second call fails": {func(w *world) { w.fail(&fault{call: giveNew, status: 500}) },
			[]string{parkOld, giveNew + ": 500", giveOld}, "answers 500", nil},
		"the second call fails, but was done": {func(w *world) { w.fail(&fault{call: giveNew, times: 1, status: 500, after: true}) },
			[]string{parkOld, giveNew + ": 500", unparkNew, giveOld}, "answers 500", nil},
		"the way back stumbles": {func(w *world) {
			w.fail(&fault{call: giveNew, status: 500})
			w.fail(&fault{call: giveOld, times: 1, status: 429, header: http.Header{"Retry-After": {"1"}}})
			w.fail(&fault{call: giveOld, times: 1, status: 500})
		}, []string{parkOld, giveNew + ": 500", giveOld + ": 429", giveOld + ": 500", giveOld}, "trying again", nil},
		"the new pod dies with the name": {func(w *world) {
			w.newServer.does(func(rw http.ResponseWriter, r *http.Request) {
				if w.name(newID) == bare {
					rw.WriteHeader(503)
					return
				}
				newProxy(rw, r)
			})
		}, []string{parkOld, giveNew, unparkNew, giveOld}, "the name does not answer from its new device: /health answers 503", []string{"--watch=6s"}},
		"the name keeps leading to the old device": {func(w *world) {
			w.oldServer.does(func(rw http.ResponseWriter, r *http.Request) {
				w.mu.Lock()
				if w.device(newID).Name == bare+suffix {
					w.stale = oldIP
				}
				w.mu.Unlock()
				w.oldProxy(rw, r)
			})
			w.mu.Lock()
			w.stale = oldIP
			w.mu.Unlock()
		}, []string{parkOld, giveNew, unparkNew, giveOld}, "the name still leads to " + oldIP, []string{"--watch=6s"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			tc.change(w)
			w.run("swap", tc.flags...).says(t, 1, tc.says, "going back to ", "measured: ", "ok    back: ")
			w.wrote(tc.calls...)
			w.names("", "-1")
			assert.DeepEqual(t, w.cluster.changed(), []string(nil))
			w.run("status").says(t, 0, "the sidecar's device carries the name", "next: preflight, then swap")
		})
	}
}

// When the way back fails too, a person is told where things are and which one thing to do; the next run finishes.
func TestSwapStranded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.fail(&fault{call: giveNew, status: 500})
	broken := w.fail(&fault{call: giveOld, status: 500})
	w.run("swap").says(t, 3,
		"answers 500", "and the way back failed too", "who carries the name: NOBODY carries the name",
		"admin console, Machines, the device with address "+oldIP+", Edit machine name, "+bare)
	w.names("-old", "-1")
	assert.Equal(t, len(w.writes()), 2+6)
	w.run("status").says(t, 0, "NOBODY carries the name", "next: swap finishes, rollback goes back")

	w.mu.Lock()
	broken.call = "nothing"
	w.mu.Unlock()
	w.run("rollback").says(t, 0, "ok    anthropic-oauth-proxy.tail1234.ts.net now leads to "+oldIP)
	w.names("", "-1")
}

// The tailnet can be written but not read: the way back goes on without.
func TestSwapGoesBackBlind(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	came, release := w.held(parkOld)
	r := w.start("swap")
	r.reached(came)
	w.fail(&fault{call: giveNew, status: 500})
	w.fail(&fault{call: "list", status: 503})
	w.fail(&fault{call: giveOld, times: 1, status: 500})
	release()
	r.wait().says(t, 1, "list devices: the Tailscale API answers 503", "trying again", "ok    back: ")
	w.wrote(parkOld, giveNew+": 500", giveOld+": 500", giveOld)
	w.names("", "-1")
}

func TestSwapStrandedAndBlind(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	came, release := w.held(parkOld)
	r := w.start("swap")
	r.reached(came)
	w.fail(&fault{call: giveNew, status: 500})
	w.fail(&fault{call: giveOld, status: 500})
	w.fail(&fault{call: "list", status: 503})
	release()
	r.wait().says(t, 3, "who carries the name: unknown, the tailnet could not be read", "Edit machine name")
	w.names("-old", "-1")
}

func TestSwapFinishesWhatWasCutOff(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.edit(oldID, func(d *dev) { d.Name = bare + "-old" + suffix })
	w.newServer.dies()
	w.run("swap").says(t, 1, "NOBODY carries the name: finishing the swap", "run rollback instead")
	w.newServer.does(newProxy)
	w.fail(&fault{call: giveNew, times: 1, status: 500, after: true})
	w.run("swap").says(t, 0, "ok    it worked out in the end: ", "carried by "+newID)
	w.edit(newID, func(d *dev) { d.Name = bare + "-1" + suffix })
	w.run("swap").says(t, 0, "now leads to "+newIP)
	w.names("-old", "")

	w = newWorld(t)
	w.edit(oldID, func(d *dev) { d.Name = bare + "-old" + suffix })
	w.fail(&fault{call: giveNew, status: 500})
	w.run("swap").says(t, 1, "ok    back: ", "carried by "+oldID)
	w.names("", "-1")
}

// One probe in four fails, or hangs: well enough for preflight, not for clients.
func TestSwapNeedsTheNameToAnswerFirst(t *testing.T) {
	t.Parallel()
	for says, bad := range map[string]http.HandlerFunc{
		"/health answers 503": func(rw http.ResponseWriter, r *http.Request) { rw.WriteHeader(503) },
		"a probe hangs":       func(rw http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
	} {
		t.Run(says, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			var asked atomic.Int64
			w.oldServer.does(func(rw http.ResponseWriter, r *http.Request) {
				if asked.Add(1)%4 == 0 {
					bad(rw, r)
					return
				}
				w.oldProxy(rw, r)
			})
			w.run("swap", "--watch=5s").says(t, 1, "nothing was changed", "did not answer steadily even before the swap: "+says)
			w.untouched()
		})
	}
}

func TestSwapRemembersWhen(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.cluster.fails["annotate"] = answer{Code: 1, Err: "Error from server (Forbidden)"}
	w.run("swap").says(t, 0, "note  the time of the swap could not be written down; cleanup will count from its first run")
	delete(w.cluster.fails, "annotate")
	w.run("swap", "--dry-run").says(t, 0, "nothing to do")
	assert.Equal(t, len(w.cluster.changed()), 0)
	w.run("swap").says(t, 0, "nothing to do")
	assert.Equal(t, len(w.cluster.changed()), 1)
}

// A signal at any moment leads back to where things were; a second one does not stop the way back.
func TestSwapInterrupted(t *testing.T) {
	t.Parallel()
	for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		t.Run(s.String()+" between the two calls", func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			came, release := w.held(parkOld)
			back, letBack := w.held(giveOld)
			r := w.start("swap")
			r.reached(came)
			r.signal(s)
			r.until("interrupted: the call under way ends first")
			release()
			r.reached(back)
			r.signal(s)
			r.signal(syscall.SIGINT)
			letBack()
			r.wait().says(t, 1, "going back to ", "ok    back: ", "signal")
			w.wrote(parkOld, giveOld)
			w.names("", "-1")
		})
	}
	t.Run("during the second call", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		came, cut, release := w.heldUntil(giveNew)
		r := w.start("swap")
		r.reached(came)
		r.signal(syscall.SIGINT)
		r.until("interrupted")
		select {
		case <-cut: // would leave open whether the name was given
			t.Fatal("the call under way was cut off")
		case <-time.After(300 * time.Millisecond): // time enough to do wrong
		}
		release()
		r.wait().says(t, 1, "ok    back: ")
		w.wrote(parkOld, giveNew, unparkNew, giveOld)
		w.names("", "-1")
	})
	t.Run("before the first call", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		w.oldServer.does(func(rw http.ResponseWriter, r *http.Request) {
			if len(w.cluster.seen("cilium-config")) > 0 { // preflight is through
				rw.WriteHeader(503)
				return
			}
			w.oldProxy(rw, r)
		})
		r := w.start("swap")
		r.until("tailnet policy")
		r.signal(syscall.SIGINT)
		r.wait().says(t, 1, "nothing was changed")
		w.untouched()
	})
	t.Run("while the output goes nowhere", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		came, release := w.held(parkOld)
		read, write, err := os.Pipe()
		assert.NilError(t, err)
		cmd := w.prepare("swap")
		cmd.Stdout, cmd.Stderr = write, write
		r := w.launch(cmd, &transcript{})
		write.Close()
		r.reached(came)
		read.Close() // what Ctrl-C does to `migration swap | tee log`
		r.signal(syscall.SIGINT)
		w.fail(&fault{call: giveNew, status: 500}) // goes back for one reason or the other
		release()
		r.wait().says(t, 1)
		w.names("", "-1")
	})
}

func TestRollback(t *testing.T) {
	t.Parallel()
	w := newWorld(t).swapped(time.Hour)
	w.run("rollback").says(t, 0, "now leads to "+oldIP, "measured: ")
	w.wrote(unparkNew, giveOld)
	w.names("", "-1")
	assert.DeepEqual(t, w.cluster.changed(), []string{"annotate deployment " + bare + " " + swappedAt + "-"})
	w.run("rollback").says(t, 0, "nothing to do: the sidecar's device carries the name")

	w = newWorld(t).swapped(time.Hour)
	w.edit("nLAPTOPCNTRL", func(d *dev) { d.Name = bare + "-1" + suffix })
	w.cluster.fails["annotate"] = answer{Code: 1, Err: "Error from server (Forbidden)"}
	w.run("rollback").says(t, 0, "note  the time of the swap could not be removed")
	w.names("", "-2") // the first name that is free
}

// The usual reason to go back is that the new path fails: then above all it has to work.
func TestRollbackFromADeadPath(t *testing.T) {
	t.Parallel()
	w := newWorld(t).swapped(time.Hour)
	w.newServer.dies()
	w.run("rollback").says(t, 0, "now leads to "+oldIP)
	w.wrote(unparkNew, giveOld)

	w = newWorld(t).swapped(time.Hour)
	w.newServer.dies()
	w.fail(&fault{call: giveOld, times: 1, status: 500})
	w.run("rollback").says(t, 0, "going back to "+oldID, "ok    it worked out in the end: ", "carried by "+oldID)
	w.wrote(unparkNew, giveOld+": 500", giveOld)
	w.names("", "-1")
}

// Without an old pod there is nothing to go back to: forward is the way out.
func TestForcedSwapStumbles(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.oldServer.dies()
	w.fail(&fault{call: giveNew, times: 1, status: 500})
	w.run("swap", "--force").says(t, 0, "going back to "+newID, "carried by "+newID)
	w.wrote(parkOld, giveNew+": 500", giveNew)

	w = newWorld(t) // and when both are dead
	w.oldServer.dies()
	w.fail(&fault{call: parkOld, status: 500})
	w.newServer.does(func(rw http.ResponseWriter, r *http.Request) {
		if len(w.writes()) > 0 {
			panic(http.ErrAbortHandler)
		}
		newProxy(rw, r)
	})
	w.run("swap", "--force").says(t, 3, "carries the name, but it does not answer", "run status")
	w.names("", "-1")
}

func TestRollbackRefuses(t *testing.T) {
	t.Parallel()
	w := newWorld(t).swapped(time.Hour)
	w.oldServer.dies()
	w.run("rollback").says(t, 1, "the sidecar's device does not answer", "it stays where it is")
	w.edit(newID, func(d *dev) { d.Name = bare + "-1" + suffix })
	w.run("rollback").says(t, 1, "run swap instead, at once")
	w.edit(newID, func(d *dev) { d.Name = bare + suffix })
	w.edit(oldID, func(d *dev) { d.Name = "elsewhere" + suffix })
	w.run("rollback").says(t, 1, "no device is called anthropic-oauth-proxy-old: there is nothing to go back to")
	w.untouched()
}

func TestRollbackFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t).swapped(time.Hour)
	w.fail(&fault{call: giveOld, status: 500})
	w.run("rollback").says(t, 1, "going back to ", "ok    back: ", "carried by "+newID)
	w.wrote(unparkNew, giveOld+": 500", giveNew)
	w.names("-old", "")
	assert.DeepEqual(t, w.cluster.changed(), []string(nil))

	w = newWorld(t).swapped(time.Hour)
	w.fail(&fault{call: unparkNew, status: 500})
	w.run("rollback").says(t, 1, "carried by "+newID)
	w.wrote(unparkNew + ": 500")
	w.names("-old", "")
}
