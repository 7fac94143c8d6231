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
	parkNew   = "rename " + newID + " to " + bare + "-new"
	giveOld   = "rename " + oldID + " to " + bare
)

// names checks what both devices are called.
func (w *world) names(old, now string) {
	w.t.Helper()
	assert.Equal(w.t, w.name(oldID), bare+old)
	assert.Equal(w.t, w.name(newID), bare+now)
}

// wrote checks which calls changed the tailnet, and that no child process got the token.
func (w *world) wrote(calls ...string) {
	w.t.Helper()
	assert.DeepEqual(w.t, w.writes(), calls)
	w.cluster.mu.Lock()
	defer w.cluster.mu.Unlock()
	for _, c := range w.cluster.calls {
		assert.Assert(w.t, !strings.Contains(strings.Join(append(c.Args, c.Env...), "\n"), token), "kubectl was given the token: %q", c)
	}
}

// untouched checks that nothing was changed anywhere.
func (w *world) untouched() {
	w.t.Helper()
	w.wrote([]string(nil)...)
	assert.DeepEqual(w.t, w.cluster.changed(), []string(nil))
}

func TestSwap(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.run("swap", "--dry-run").says(t, 0, "would rename "+bare+" ("+oldID, "would rename "+bare+"-1 ("+newID, "would go back")
	w.untouched()
	w.run("swap").says(t, 0, "ok    "+bare+suffix+" leads to "+newIP, "measured: ", " 0 without an answer", "cleanup is next")
	w.wrote(parkOld, giveNew)
	w.names("-old", "")
	w.run("swap").says(t, 0, "nothing to do: the operator's device carries the name")
	w.run("preflight").says(t, 0, "note  the operator's device carries the name already", "nothing stands in the way")
	w.run("status").says(t, 0, "the operator's device carries the name", "next: cleanup")
	w.wrote(parkOld, giveNew)
	assert.DeepEqual(t, w.cluster.changed(), []string(nil))
}

// Until the second call is done, clients cannot find the name. swap counts these failures and measures the time.
func TestSwapMeasuresTheGap(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	second, release := w.held(giveNew)
	r := w.start("swap")
	r.reached(second)
	begin := time.Now()
	poll.WaitOn(t, func(poll.LogT) poll.Result {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.misses >= 4 {
			return poll.Success()
		}
		return poll.Continue("%d look-ups missed the name", w.misses)
	}, poll.WithTimeout(30*time.Second), poll.WithDelay(10*time.Millisecond))
	held := time.Since(begin)
	release()
	res := r.wait()
	res.says(t, 0, "leads to "+newIP)
	found := regexp.MustCompile(`the calls took (\S+)\n[^$]* (\d+) without an answer; silent for (\S+) at most\n`).FindStringSubmatch(res.out)
	assert.Assert(t, len(found) == 4, "%s", res.out)
	took, err := time.ParseDuration(found[1])
	assert.NilError(t, err)
	silent, err := time.ParseDuration(found[3])
	assert.NilError(t, err)
	missed, err := strconv.Atoi(found[2])
	assert.NilError(t, err)
	assert.Assert(t, took+time.Millisecond >= held && silent+time.Millisecond >= held && missed >= 3, "held for %v: %v", held, found[1:])
}

// Whatever fails, the names are as before in the end, and exactly these calls were made.
func TestSwapFails(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		change func(*world)
		calls  []string
		says   string
		flags  []string
	}{
		"the first call is refused": {func(w *world) {
			w.fail(&fault{call: parkOld, status: 403, body: `{"message":"calling actor does not have enough permissions"}`})
		},
			[]string{parkOld + ": 403"}, "does not have enough permissions", nil},
		"the first call is redirected": {func(w *world) { w.fail(&fault{call: parkOld, status: 302}) },
			[]string{parkOld + ": 302"}, "answers 302", nil},
		"the first call fails, but was done": {func(w *world) { w.fail(&fault{call: parkOld, status: 502, body: "<html>", after: true}) },
			[]string{parkOld + ": 502", giveOld}, "answers 502", nil},
		"the first answer is lost": {func(w *world) { w.fail(&fault{call: parkOld, after: true}) },
			[]string{parkOld + ": 0", giveOld}, "EOF", nil},
		"the second call fails": {func(w *world) { w.fail(&fault{call: giveNew, status: 500}) },
			[]string{parkOld, giveNew + ": 500", giveOld}, "answers 500", nil},
		"the second call fails, but was done": {func(w *world) { w.fail(&fault{call: giveNew, times: 1, status: 500, after: true}) },
			[]string{parkOld, giveNew + ": 500", unparkNew, giveOld}, "answers 500", nil},
		"the way back stumbles": {func(w *world) {
			w.fail(&fault{call: giveNew, status: 500})
			w.fail(&fault{call: giveOld, times: 1, status: 429, body: `{"message":"too many requests"}`})
			w.fail(&fault{call: giveOld, times: 1, status: 500})
		}, []string{parkOld, giveNew + ": 500", giveOld + ": 429", giveOld + ": 500", giveOld}, "too many requests (429); trying again", nil},
		"the new pod dies with the name": {func(w *world) {
			w.newServer.does(func(rw http.ResponseWriter, r *http.Request) {
				if w.name(newID) == bare {
					rw.WriteHeader(503)
					return
				}
				newProxy(rw, r)
			})
		}, []string{parkOld, giveNew, unparkNew, giveOld}, "the name does not answer from its new device: 0 of 10 answers in a row after 6s, before that: /health answers 503", []string{"--watch=6s"}},
		"the name keeps leading to the old device": {func(w *world) { w.stale = oldIP },
			[]string{parkOld, giveNew, unparkNew, giveOld}, "the name leads to " + oldIP, []string{"--watch=6s"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			tc.change(w)
			w.run("swap", tc.flags...).says(t, 1, tc.says, "going back: ", "measured: ", "ok    back: ")
			w.wrote(tc.calls...)
			w.names("", "-1")
		})
	}
}

// If the way back fails too, the command tells the person the one thing to do. The next run finishes the rollback.
func TestSwapStranded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.fail(&fault{call: giveNew, status: 500})
	broken := w.fail(&fault{call: giveOld, status: 500})
	w.run("swap").says(t, 3, "answers 500", "and the way back failed too", "admin console, Machines, the device with address "+oldIP+", Edit machine name, "+bare)
	w.names("-old", "-1")
	assert.Equal(t, len(w.writes()), 2+7)
	w.run("status").says(t, 0, "NOBODY carries the name", "next: rollback, at once")
	w.run("swap").says(t, 1, "FAIL  NOBODY carries the name: run rollback, at once")

	w.mu.Lock()
	broken.call = "nothing"
	w.mu.Unlock()
	w.run("rollback").says(t, 0, "ok    "+bare+suffix+" leads to "+oldIP)
	w.names("", "-1")
}

// If the tailnet can be written but not read, the way back works without reading.
func TestSwapGoesBackBlind(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first, release := w.held(parkOld)
	r := w.start("swap")
	r.reached(first)
	w.fail(&fault{call: giveNew, status: 500})
	w.fail(&fault{call: "list", status: 503, body: "<html>"})
	w.fail(&fault{call: giveOld, times: 1, status: 500})
	release()
	r.wait().says(t, 1, "the Tailscale API answers 503", "trying again", "ok    back: ")
	w.wrote(parkOld, giveNew+": 500", giveOld+": 500", giveOld)
	w.names("", "-1")
}

// One probe in four fails or hangs. preflight may miss that, but swap must not.
func TestSwapNeedsTheNameToAnswerFirst(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var asked atomic.Int64
	w.oldServer.does(func(rw http.ResponseWriter, r *http.Request) {
		switch asked.Add(1) % 8 {
		case 0:
			<-r.Context().Done()
		case 4:
			rw.WriteHeader(503)
		default:
			oldProxy(rw, r)
		}
	})
	w.run("swap", "--watch=6s").says(t, 1, "nothing was changed, "+bare+suffix+" does not answer steadily: ")
	w.untouched()
}

// A signal at any moment restores the previous state. A second signal does not stop that.
func TestSwapInterrupted(t *testing.T) {
	t.Parallel()
	for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		t.Run(s.String()+" between the two calls", func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			first, release := w.held(parkOld)
			back, letBack := w.held(giveOld)
			r := w.start("swap")
			r.reached(first)
			r.signal(s)
			r.until("interrupted: the call under way ends first")
			release()
			r.reached(back)
			r.signal(s)
			r.signal(syscall.SIGINT)
			letBack()
			r.wait().says(t, 1, "going back: ", "ok    back: ", "signal")
			w.wrote(parkOld, giveOld)
			w.names("", "-1")
		})
	}
	t.Run("during the second call", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		second, release := w.held(giveNew)
		r := w.start("swap")
		r.reached(second)
		r.signal(syscall.SIGINT)
		r.until("interrupted")
		select {
		case <-second.cut: // after this nobody knows whether the name was given
			t.Fatal("the call under way was cut off")
		case <-time.After(300 * time.Millisecond): // long enough to do the wrong thing
		}
		release()
		r.wait().says(t, 1, "ok    back: ")
		w.wrote(parkOld, giveNew, unparkNew, giveOld)
		w.names("", "-1")
	})
	t.Run("before the first call", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		r := w.start("swap")
		r.until("tailnet policy") // the last line before two seconds of probing
		r.signal(syscall.SIGINT)
		r.wait().says(t, 1, "nothing was changed")
		w.untouched()
	})
	t.Run("while the output goes nowhere", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		first, release := w.held(parkOld)
		read, write, err := os.Pipe()
		assert.NilError(t, err)
		cmd := w.prepare("swap")
		cmd.Stdout, cmd.Stderr = write, write
		r := w.launch(cmd, &transcript{})
		write.Close()
		r.reached(first)
		read.Close() // what Ctrl-C does to `migration swap | tee log`
		r.signal(syscall.SIGINT)
		w.fail(&fault{call: giveNew, status: 500}) // it goes back because of this failure or because of the lost output
		release()
		r.wait().says(t, 1)
		w.names("", "-1")
	})
}
